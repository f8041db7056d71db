"""Contract 1: `handle(request) -> reply`. No state but read-only weights."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.errors import CheckpointError, PayloadError, brief
from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.dtypes import BY_NAME, widened
from faasmoe.experts.expert import ExpertForm, ExpertWeights, Gate
from faasmoe.experts.finite import all_finite
from faasmoe.experts.formats.base import BlockKernel
from faasmoe.experts.formats.registry import block_kernel, formats
from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY
from faasmoe.experts.mapping import TensorLocation
from faasmoe.experts.payload import (
    DTYPES,
    Buffer,
    Reply,
    Request,
    Timings,
    Writable,
    decode_request,
    encode_reply,
    reply_bytes,
    reply_sums,
    seal_reply,
)
from faasmoe.experts.widened_experts import WidenedExperts

Reserve = Callable[[int], Writable]  # room for a reply of so many bytes, where its reader finds it
Handle = Callable[[Writable, memoryview | None, int, Reserve], Buffer]


answer_experts = LIBRARY.function("answer_experts", *[ADDRESS] * 4, result=INT)


class FunctionMemory(ctypes.Structure):
    """`ExpertFunction` of `c/expert/function.c`."""

    _fields_ = (
        ("block", ADDRESS),
        ("experts", INT),
        ("width", INT),
        ("layer", INT),
        ("load_ns", INT),
        ("dtype", ctypes.c_int32),
        ("first", ctypes.c_int32),
    )


class ExpertBlock:
    """The experts of one function, loaded."""

    def __init__(self, artifact: Artifact, experts: Sequence[ExpertWeights]) -> None:
        self.artifact = artifact
        self._experts = experts
        down, form, dtype = experts[0].down, artifact.form, artifact.dtype
        self._width = down.shape[1 if form.transposed else 0]
        self._widened = WidenedExperts(experts, form, dtype)
        kernel = block_kernel(down)
        self._kernel: BlockKernel | WidenedExperts = self._widened
        self._compiled: int | None = None  # the kernel's `address`
        if kernel is not None and kernel.supports(experts, form, dtype):
            fused = kernel(experts, form, dtype)
            self._kernel, self._compiled = fused, fused.address

    @classmethod
    def load(cls, artifact: Artifact) -> ExpertBlock:
        """Map the weights. Raises `CheckpointError` if they are not there."""
        dtype = artifact.dtype
        experts = [
            ExpertWeights(
                first=tuple(location.map(dtype, read_ahead=True) for location in expert.first),
                down=expert.down.map(dtype, read_ahead=True),
                first_bias=tuple(_bias(location, dtype) for location in expert.first_bias),
                down_bias=_bias(expert.down_bias, dtype) if expert.down_bias else None,
            )
            for expert in artifact.weights
        ]
        return cls(artifact, experts)

    def forward(self, request: Request, sums: NDArray[np.float32]) -> None:
        """Add each row's sum over this block's experts, weighted by the router, to `sums` `[T, H]`.

        Raises `PayloadError` if the request is for other experts, another layer or another width, or holds a number
        that is not finite; `CheckpointError` if the sums are not finite for another reason.
        """
        self._check(request)
        kernel = self._kernel if request.dtype == self.artifact.dtype else self._widened
        kernel.forward(request, sums)
        if not all_finite(sums):
            raise self._not_finite(request)

    def memory(self, load_ns: int) -> FunctionMemory:
        """The block as a compiled function has it, loaded in `load_ns`; it stays while this object does."""
        artifact = self.artifact
        return FunctionMemory(
            block=self._compiled,
            experts=len(self._experts),
            width=self._width,
            layer=artifact.layer,
            load_ns=load_ns,
            dtype=DTYPES.index(artifact.dtype),
            first=True,
        )

    def _not_finite(self, request: Request) -> PayloadError | CheckpointError:
        if not (np.isfinite(_rows(request, request.row)).all() and np.isfinite(request.weight).all()):
            return PayloadError("non-finite rows or router weights in the request (NaN or infinity)")
        numbers = sorted({self.artifact.experts[expert] for expert in request.expert.tolist()})
        return CheckpointError(
            f"non-finite sums (NaN or infinity) from layer {self.artifact.layer}, experts "
            f"{', '.join(map(str, numbers))}: a weight of theirs is not finite, or numbers become too large for float32"
        )

    def _check(self, request: Request) -> None:
        if request.layer != self.artifact.layer:
            raise PayloadError(f"layer {request.layer} was sent to a function of layer {self.artifact.layer}")
        if request.rows.shape[1] != self._width:
            raise PayloadError(f"rows of width {request.rows.shape[1]}, not {self._width}")
        experts = request.expert.tolist()
        if experts and not 0 <= min(experts) <= max(experts) < len(self._experts):
            raise PayloadError(f"a slot names an expert outside 0..{len(self._experts) - 1}")


def _bias(location: TensorLocation, dtype: str) -> NDArray[Any]:
    """A bias in exactly this dtype, as kernels take it: a plain weight may keep a narrower one."""
    vector = location.map(dtype, read_ahead=True)
    return widened(vector) if dtype == "F32" else vector


def _rows(request: Request, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Some of a request's rows, widened."""
    return widened(request.rows[rows if request.picked is None else request.picked[rows]])


def load(artifact_path: str) -> ExpertFunction:
    """Load a function. Raises `CheckpointError`."""
    start = time.perf_counter_ns()
    block = ExpertBlock.load(Artifact.read(artifact_path))
    return ExpertFunction(block, time.perf_counter_ns() - start)


class ExpertFunction:
    """Answers one envelope with another, and never raises.

    `compiled`, if the block's kernel is, does so without Python (`c/expert/function.c`), and leaves to Python what is
    wrong or for another kernel: a platform that can call it asks it first.
    """

    def __init__(self, block: ExpertBlock, load_ns: int) -> None:
        self._block = block
        self._memory = block.memory(load_ns)

    @property
    def compiled(self) -> tuple[int | None, int | None]:
        """The addresses of a C function and of its context, which stays while this object does; None: there is none."""
        if not self._memory.block:
            return None, None
        entry: Any = answer_experts
        return ctypes.cast(entry, ADDRESS).value, ctypes.addressof(self._memory)

    def __call__(self, data: Writable, shared: memoryview | None, queue_ns: int, reserve: Reserve) -> Buffer:
        """Answer `data`.

        `shared`: what the call shares with others; `queue_ns`: how long it has waited; `reserve`: where to get room for
        the reply.
        """
        cold, self._memory.first = bool(self._memory.first), False
        load_ns = self._memory.load_ns if cold else 0
        start = time.perf_counter_ns()
        try:
            request = decode_request(data, shared)
            tokens, width = request.tokens, request.rows.shape[1]
            reply = reserve(reply_bytes(tokens, width))
            self._block.forward(request, reply_sums(reply, tokens, width))
            timings = Timings(queue_ns, load_ns, time.perf_counter_ns() - start)
            seal_reply(reply, tokens, width, timings, cold)
            return reply
        except Exception as failure:  # noqa: BLE001 - a function reports any failure in its reply
            error = f"{type(failure).__name__}: {brief(failure)}"
            timings = Timings(queue_ns, load_ns, time.perf_counter_ns() - start)
            return b"".join(encode_reply(Reply(None, timings, cold, error)))


def warm_up() -> None:
    """Use once what an instance uses, so that a process that forks instances has it initialised for all of them.

    That is loading: the calls of a compiled function need no Python.
    """
    load(_example())


@cache
def _example() -> str:
    """The artifact of a small function with an expert in bfloat16.

    Made once, by what forks: work that a forked process need not do makes none of the shared pages its own.
    """
    formats()  # so that they are imported
    side, dtype = 64, "BF16"
    matrix = TensorLocation(_memory_file(bytes(BY_NAME[dtype].itemsize * side * side)), 0, dtype, (side, side))
    experts = (ExpertLocations((matrix, matrix), matrix),)
    artifact = Artifact(0, (0,), dtype, ExpertForm(Gate("glu", "silu")), experts)
    return str(_memory_file(artifact.to_text().encode()))


def _memory_file(content: bytes) -> Path:
    """A file in memory that stays while this process and its forks live. It needs no folder that can be written to."""
    fd = os.memfd_create("faasmoe-warm-up", os.MFD_CLOEXEC)
    os.write(fd, content)
    return Path(f"/proc/self/fd/{fd}")
