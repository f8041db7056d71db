"""Several threads that share one group of linear layers after the other (`c/linear/team.c`)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, BOOL, INT, LIBRARY
from faasmoe.model.dense.linear.linear_group import Layers
from faasmoe.model.dense.replay.operation import TEAM_BEGIN, TEAM_END, TEAM_RUN, Kernel, Row

_MOST_THREADS = 16

_start = LIBRARY.function("team_start", INT, result=ADDRESS)
_run = LIBRARY.function("team_run", *[ADDRESS] * 4, INT, BOOL, result=BOOL)
_rest, _resume, _drop = (LIBRARY.function(name, ADDRESS) for name in ("team_rest", "team_resume", "team_drop"))


class Team:
    """The thread that calls `run`, and its helpers. One call at a time."""

    def __init__(self, threads: int) -> None:
        """`threads` counts the caller's as well. Helpers are there until the process ends.

        Raises `OSError` if the system gives no thread.
        """
        self.helpers = min(threads, _MOST_THREADS) - 1
        self._turn = threading.Lock()
        self._last: Layers | None = None  # that were run with helpers
        self._rested = False  # since then
        self.address = _start(self.helpers)
        if not self.address:
            raise OSError(f"cannot start {self.helpers} threads for linear layers")

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
        alone = alone or not self.helpers
        with self._turn:
            if not alone:
                self._learn(layers)
            if not _run(self.address, layers.address, address(x), address(y), rows, alone):
                raise MemoryError(f"{rows} rows of {layers.ins} numbers")
        if len(layers.outs) == 1:
            return [y.view(rows, -1)]
        parts = torch.split(y, [rows * outs for outs in layers.outs])
        return [part.view(rows, outs) for part, outs in zip(parts, layers.outs, strict=True)]

    def rest(self) -> None:
        """Send the helpers to sleep until the next layers or `resume`, because experts need the cores."""
        with self._turn:
            self._rested = True
            _rest(self.address)

    def resume(self) -> None:
        """Have the helpers go on with layers that a step has begun."""
        with self._turn:
            _resume(self.address)

    def drop(self) -> None:
        """Give up layers that a step has begun and does not end. Their memory is free then."""
        with self._turn:
            _drop(self.address)

    def _learn(self, layers: Layers) -> None:
        """Remember that `layers` come after those of the last call; they will in the next step as well."""
        if (last := self._last) is not None:
            last.lead_to(layers, at_once=not self._rested)
        self._last, self._rested = layers, False


@dataclass(frozen=True, slots=True)
class TeamRun(Kernel):
    """A call of `Team.run`, as `replay.operation.Kernel`.

    Or one of the two that it can be in a list: helpers begin with the layers, and the team ends them.
    """

    team: Team
    layers: Layers
    alone: bool
    kind: int = TEAM_RUN

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """`x`: see `Team.run`."""
        return self.team.run(self.layers, *tensors, alone=self.alone)

    def row(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> Row:
        """See `Kernel`. The team learns nothing of what comes after the layers."""
        x, y = tensors[0], results[0]
        addresses = (self.team.address, self.layers.address, x.data_ptr(), y.data_ptr())
        return self.kind, *addresses, len(x), int(self.alone)

    def in_two(self) -> tuple[TeamRun, TeamRun] | None:
        """See `Kernel`. None if it runs alone."""
        if self.alone or not self.team.helpers:
            return None
        return replace(self, kind=TEAM_BEGIN), replace(self, kind=TEAM_END)
