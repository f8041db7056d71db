"""What requests use: what a step costs, split between the sequences that took part in it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from faasmoe.engine.experts.grouping import Part
from faasmoe.experts.payload import Reply
from faasmoe.platforms.base import Replies
from faasmoe.protocol.request import Used

COSTS = ("invocations", "expert_seconds", "gb_seconds", "cold_starts")  # of a call, in this order

GB_SECONDS = COSTS.index("gb_seconds")


class StepCosts:
    """What the calls of a step cost, and for which of its rows they were. For the engine's thread.

    Dispatch adds to it layer by layer, and the engine splits it at the end of the step, all layers in one go.
    """

    def __init__(self) -> None:
        self._costs: list[tuple[float, float, float, float]] = []  # by call, as `COSTS`
        self._slots: list[int] = []  # how many, by call
        self._rows: list[NDArray[np.int32]] = []  # of the step, by call and slot
        self._sent: tuple[Sequence[str], Sequence[Part]] = ((), ())

    def send(self, functions: Sequence[str], parts: Sequence[Part]) -> None:
        """A layer's calls are about to be made; `functions` are the names of its blocks."""
        self._sent = functions, parts

    def rows_sent_to(self, function: str) -> NDArray[np.int32]:
        """Rows of the step that the calls of `function` were for, in the layer that was called last."""
        functions, parts = self._sent
        rows = [part.slot_rows for part in parts if functions[part.block] == function]
        return np.unique(np.concatenate(rows)) if rows else np.zeros(0, np.int32)

    def add(self, parts: Sequence[Part], answers: Sequence[Reply], replies: Replies) -> None:
        """A layer's calls have been answered: `answers` are the decoded `replies` to `parts`."""
        for part, answer, busy, memory in zip(parts, answers, replies.busy, replies.memory, strict=True):
            self._costs.append((1.0, answer.timings.compute / 1e9, busy * memory / 1e9, float(answer.cold)))
            self._slots.append(len(part.slot_rows))
            self._rows.append(part.slot_rows)

    def split(self, counts: Sequence[int]) -> NDArray[np.float64]:
        """Everything since the last time, `[len(counts), len(COSTS)]`: a call's cost by slots.

        The first `counts[0]` rows of the step are the first sequence's, and so on.
        """
        if len(counts) == 1 or not self._costs:
            shares = np.zeros((len(counts), len(COSTS)))
            shares[0] = np.sum(self._costs, axis=0) if self._costs else 0.0
        else:
            calls, many = np.arange(len(self._costs)), len(counts)
            slots = np.array(self._slots)
            whose = np.repeat(np.arange(many), counts)[np.concatenate(self._rows)]
            by_call = np.bincount(np.repeat(calls * many, slots) + whose, minlength=len(calls) * many)
            shares = (by_call.reshape(-1, many) / slots[:, None]).T @ np.array(self._costs)
        self._costs, self._slots, self._rows = [], [], []
        return shares


class RequestUsage:
    """What one request has used up to now. For the engine's thread.

    While it is entered (`with usage:`), the thread's processor time is the request's alone.
    """

    def __init__(self) -> None:
        self._costs = np.zeros(len(COSTS))
        self._cpu = 0.0  # seconds
        self._entered: float | None = None  # when, in `time.thread_time`

    def add(self, costs: NDArray[np.float64], cpu_seconds: float) -> None:
        """Its part of a step. `costs` are as `COSTS`."""
        self._costs += costs
        self._cpu += cpu_seconds

    def read(self) -> Used:
        """All of it."""
        now = 0.0 if self._entered is None else time.thread_time() - self._entered
        invocations, expert_seconds, gb_seconds, cold_starts = self._costs.tolist()
        return Used(invocations, expert_seconds, gb_seconds, cold_starts, self._cpu + now)

    def __enter__(self) -> None:
        self._entered = time.thread_time()

    def __exit__(self, *_: object) -> None:
        if self._entered is not None:
            self._cpu += time.thread_time() - self._entered
        self._entered = None
