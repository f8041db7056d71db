"""A block of experts over any number of rows, in one call, with weights in any `KernelFormat` (`c/expert/fused.c`).

The linear layers are those of `matvec`; gather, gate, router weight and sum happen between them, in float32. Only what
the gate gives is rounded to bfloat16, if the model computes in it. A row has the same bits whatever rows come with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.expert import ACTIVATIONS, GATE_KINDS, ExpertForm, ExpertWeights
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import addresses, format_of
from faasmoe.experts.kernels.library import ADDRESS, BOOL, FLOAT, INT, LIBRARY
from faasmoe.experts.payload import Request

_experts_forward = LIBRARY.function("experts_forward", *[ADDRESS] * 6, INT, ADDRESS, result=BOOL)


class _Block(ctypes.Structure):
    """`Block` of `c/expert/fused.c`."""

    _fields_ = (
        ("experts", ADDRESS),
        ("count", INT),
        ("hidden", INT),
        ("inner", INT),
        ("outs", INT),
        ("kind", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("limit", FLOAT),
        ("alpha", FLOAT),
        ("transposed", ctypes.c_int32),
        ("interleaved", ctypes.c_int32),
        ("rounded", ctypes.c_int32),
    )


class FusedExperts:
    """The experts of a block, whose arrays it keeps alive, ready for the call."""

    def __init__(
        self, experts: Sequence[ExpertWeights], form: ExpertForm, dtype: str, rounded: bool = False
    ) -> None:
        """`dtype`: that of rows. `rounded`: what the gate gives is rounded to bfloat16 even if rows are float32.

        Raises `ValueError` for experts that `supports` refuses.
        """
        if not self.supports(experts, form, dtype):
            raise ValueError("experts that the compiled kernel cannot run")
        gate, one = form.gate, experts[0]
        self._experts = experts
        self._table = np.array([_addresses(expert, dtype) for expert in experts], np.int64)
        hidden, inner = one.down.shape[::-1] if form.transposed else one.down.shape
        self._block = _Block(
            address(self._table),
            len(experts),
            hidden,
            inner,
            one.first[0].shape[1 if form.transposed else 0],
            GATE_KINDS.index(gate.kind),
            list(ACTIVATIONS).index(gate.activation),
            gate.limit,
            gate.alpha,
            form.transposed,
            form.interleaved and len(one.first) == 1 and gate.kind != "none",
            rounded,
        )
        self.address = ctypes.addressof(self._block)

    @staticmethod
    def supports(experts: Sequence[ExpertWeights], form: ExpertForm, dtype: str) -> bool:
        """Whether the kernel takes the experts for rows in `dtype` (`F32`, `BF16`).

        Kernels read all matrices, and those of a layer have one format; biases are contiguous, in `dtype`. Quantised
        matrices do not lie transposed.
        """
        vectors = [vector for expert in experts for vector in (*expert.first_bias, expert.down_bias)]
        return (
            _one_format([matrix for expert in experts for matrix in expert.first], form, dtype)
            and _one_format([expert.down for expert in experts], form, dtype)
            and all(vector is None or in_memory(vector, dtype) for vector in vectors)
        )

    def forward(self, request: Request, sums: Any) -> None:
        """As `ExpertBlock.forward`, for rows in the kernel's dtype and a request that was checked.

        Runs on the calling thread. Raises `MemoryError`.
        """
        slots = len(request.row)
        picked = 0 if request.picked is None else address(request.picked)
        row, expert, weight = map(address, (request.row, request.expert, request.weight))
        if not _experts_forward(
            self.address, address(request.rows), picked, row, expert, weight, slots, address(sums)
        ):
            raise MemoryError(f"experts for {slots} slots")


def _one_format(matrices: Sequence[Matrix], form: ExpertForm, dtype: str) -> bool:
    """Whether matrices have one format that kernels read for rows in `dtype`."""
    formats = {place and place.format for place in (addresses(matrix, dtype) for matrix in matrices)}
    return len(formats) == 1 and all(
        format is not None and (format.plain or not form.transposed) for format in formats
    )


def _addresses(expert: ExpertWeights, dtype: str) -> list[int]:
    """An `Expert` of `c/expert/fused.c`: for each matrix its addresses, format and the address of the bias."""
    biases = expert.first_bias or (None,) * len(expert.first)
    first = [_matrix(*layer, dtype) for layer in zip(expert.first, biases, strict=True)]
    second = first[1] if len(first) == 2 else (0, 0, 0, 0)
    return [*first[0], *second, *_matrix(expert.down, expert.down_bias, dtype)]


def _matrix(matrix: Matrix, bias: Any, dtype: str) -> tuple[int, int, int, int]:
    found = addresses(matrix, dtype)
    if found is None:
        raise ValueError(f"no kernel for {format_of(matrix).name} {tuple(matrix.shape)}")
    return (*found, 0 if bias is None else address(bias))
