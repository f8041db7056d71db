"""The costs of a step's calls, split between the sequences that took part in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from faasmoe.engine.experts.grouping import Part
from faasmoe.experts.payload import Reply
from faasmoe.platforms.base import Replies

COSTS = ("invocations", "expert_seconds", "gb_seconds", "cold_starts")  # of a call, in this order

GB_SECONDS, COLD_STARTS = map(COSTS.index, ("gb_seconds", "cold_starts"))


class StepCosts:
    """The costs of a step's calls, and the rows of the step that each call was for. For the engine's thread.

    Dispatch adds to it layer by layer, and the engine splits it at the end of the step, all layers in one go.
    """

    def __init__(self) -> None:
        self._costs: list[tuple[float, float, float, float]] = []  # by call, as `COSTS`
        self._slots: list[int] = []  # how many, by call
        self._rows: list[NDArray[np.int32]] = []  # of the step, by call and slot
        self._sent: tuple[Sequence[str], Sequence[Part]] = ((), ())

    def send(self, functions: Sequence[str], parts: Sequence[Part]) -> None:
        """Note the calls of a layer before they are sent; `functions` are the names of its blocks."""
        self._sent = functions, parts

    def rows_sent_to(self, function: str) -> NDArray[np.int32]:
        """Rows of the step that the calls of `function` were for, in the layer that was called last."""
        functions, parts = self._sent
        rows = [part.slot_rows for part in parts if functions[part.block] == function]
        return np.unique(np.concatenate(rows)) if rows else np.zeros(0, np.int32)

    def add(self, parts: Sequence[Part], answers: Sequence[Reply], replies: Replies) -> None:
        """Add the costs of a layer's calls: `answers` are the decoded `replies` to `parts`."""
        for part, answer, busy, memory in zip(parts, answers, replies.busy, replies.memory, strict=True):
            self._costs.append((1.0, answer.timings.compute / 1e9, busy * memory / 1e9, float(answer.cold)))
            self._slots.append(len(part.slot_rows))
            self._rows.append(part.slot_rows)

    def split(self, counts: Sequence[int]) -> NDArray[np.float64]:
        """The costs since the last split, `[len(counts), len(COSTS)]`: a call's cost by slots.

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
