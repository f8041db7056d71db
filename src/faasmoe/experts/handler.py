"""Contract 1: `handle(request) -> reply`. No state but read-only weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from faasmoe.errors import PayloadError
from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.dtypes import BY_NAME
from faasmoe.experts.kernels import ExpertWeights, expert_forward, linear_backend
from faasmoe.experts.mapping import TensorLocation, map_tensor
from faasmoe.experts.payload import Buffer, Reply, Request, Timings, decode_request, encode_reply

Handle = Callable[[bytearray, int], list[Buffer]]


class ExpertBlock:
    """The experts of one function, loaded."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.dtype = BY_NAME[artifact.dtype]
        self._experts = [self._load(expert) for expert in artifact.weights]

    def _load(self, expert: ExpertLocations) -> ExpertWeights:
        def get(location: TensorLocation) -> Tensor:  # a mapped view, or a copy if the dtype must change
            return map_tensor(location, read_ahead=True).to(self.dtype)

        return ExpertWeights(
            first=tuple(get(location) for location in expert.first),
            down=get(expert.down),
            first_bias=tuple(get(location) for location in expert.first_bias),
            down_bias=get(expert.down_bias) if expert.down_bias else None,
        )

    def forward(self, request: Request) -> Tensor:
        """Each row's sum over this block's experts, weighted by the router: `[T, H]` float32.

        Raises `PayloadError` if the request is for other experts, another layer or another width.
        """
        self._check(request)
        sums = torch.zeros(request.rows.shape, dtype=torch.float32)
        rows = request.rows.to(self.dtype)
        for index in torch.unique(request.expert).tolist():
            slots = (request.expert == index).nonzero().squeeze(1)
            picked = request.row[slots].long()
            with linear_backend(len(picked)):
                out = expert_forward(rows[picked], self._experts[index], self.artifact.form)
            sums.index_add_(0, picked, out.float() * request.weight[slots, None])
        return sums

    def _check(self, request: Request) -> None:
        if request.layer != self.artifact.layer:
            raise PayloadError(f"layer {request.layer} was sent to a function of layer {self.artifact.layer}")
        if request.rows.shape[1] != self.artifact.hidden_size:
            raise PayloadError(f"rows of width {request.rows.shape[1]}, not {self.artifact.hidden_size}")
        if request.expert.numel() and not (
            0 <= int(request.expert.min()) <= int(request.expert.max()) < len(self._experts)
        ):
            raise PayloadError(f"a slot names an expert outside 0..{len(self._experts) - 1}")


def load(artifact_path: str) -> Handle:
    """Load a function; what it returns answers one envelope with another, and never raises.

    The second argument is how long the request waited before it was read, in nanoseconds.
    """
    start = time.perf_counter_ns()
    block = ExpertBlock(Artifact.read(Path(artifact_path)))
    load_ns = time.perf_counter_ns() - start
    first = True

    @torch.inference_mode()
    def handle(data: bytearray, queue_ns: int) -> list[Buffer]:
        nonlocal first
        cold, first = first, False
        start = time.perf_counter_ns()
        sums, error = None, None
        try:
            sums = block.forward(decode_request(data))
        except Exception as failure:  # noqa: BLE001 - a function reports any failure in its reply
            error = f"{type(failure).__name__}: {failure}"
        timings = Timings(queue_ns, load_ns if cold else 0, time.perf_counter_ns() - start)
        return encode_reply(Reply(sums, timings, cold, error))

    return handle
