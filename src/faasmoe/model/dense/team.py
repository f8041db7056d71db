"""Several threads that share one group of linear layers after the other (`c/linear/team.c`)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, BOOL, INT, LIBRARY
from faasmoe.model.dense.layers import Layers
from faasmoe.model.dense.replay.operation import TEAM_RUN, Kernel, Row

_MOST_THREADS = 16

_start = LIBRARY.function("team_start", INT, result=ADDRESS)
_run = LIBRARY.function("team_run", *[ADDRESS] * 4, INT, BOOL, result=BOOL)
_rest = LIBRARY.function("team_rest", ADDRESS)


class Team:
    """The thread that calls `run`, and its helpers. One call at a time."""

    def __init__(self, threads: int) -> None:
        """`threads` counts the caller's as well. Helpers are there until the process ends.

        Raises `OSError` if the system gives no thread.
        """
        self._helpers = min(threads, _MOST_THREADS) - 1
        self._turn = threading.Lock()
        self._last: Layers | None = None  # that were run with helpers
        self._rested = False  # since then
        self._team = _start(self._helpers)
        if not self._team:
            raise OSError(f"cannot start {self._helpers} threads for linear layers")

    def run(self, layers: Layers, x: Tensor, *, alone: bool = False) -> list[Tensor]:
        """`x` `[n, in]` to `[n, out]` of each layer, all in `Layers.dtype`: the bits of `matvec.linear_rows`.

        Helpers that rest, and all if `alone`, leave it to the caller's thread. Raises `ValueError` for an `x` of
        another type or width.
        """
        if x.dtype != layers.dtype or x.dim() != 2 or x.shape[1] != layers.ins:
            raise ValueError(
                f"no kernel for {x.dtype} {tuple(x.shape)} by layers of {layers.ins} columns in {layers.dtype}"
            )
        rows, x = len(x), x.contiguous()
        y = torch.empty(rows * sum(layers.outs), dtype=layers.dtype)
        alone = alone or not self._helpers
        with self._turn:
            if not alone:
                self._learn(layers)
            if not _run(self._team, layers.address, address(x), address(y), rows, alone):
                raise MemoryError(f"{rows} rows of {layers.ins} numbers")
        if len(layers.outs) == 1:
            return [y.view(rows, -1)]
        parts = torch.split(y, [rows * outs for outs in layers.outs])
        return [part.view(rows, outs) for part, outs in zip(parts, layers.outs, strict=True)]

    def row(self, layers: Layers, x: Tensor, y: Tensor, *, alone: bool) -> Row:
        """What `run` does, as a step (`replay.operation.Kernel`). It learns nothing of what comes after `layers`."""
        addresses = (self._team, layers.address, x.data_ptr(), y.data_ptr())
        return TEAM_RUN, *addresses, len(x), int(alone or not self._helpers)

    def rest(self) -> None:
        """Send the helpers to sleep until the next layers, because experts need the cores."""
        with self._turn:
            self._rested = True
            _rest(self._team)

    def _learn(self, layers: Layers) -> None:
        """Remember that `layers` come after those of the last call; they will in the next step as well."""
        if (last := self._last) is not None:
            last.lead_to(layers, at_once=not self._rested)
        self._last, self._rested = layers, False


@dataclass(frozen=True, slots=True)
class TeamRun(Kernel):
    """A call of `Team.run`, as `replay.operation.Kernel`."""

    team: Team
    layers: Layers
    alone: bool

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """`x`: see `Team.run`."""
        return self.team.run(self.layers, *tensors, alone=self.alone)

    def row(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> Row:
        """See `Kernel`."""
        return self.team.row(self.layers, tensors[0], results[0], alone=self.alone)
