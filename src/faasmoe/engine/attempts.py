"""A step on the model. Where it fails, its sequences are run again in parts, until only those fail that cannot run.

What a failed attempt has written to sequences' states is undone before the next one, so that the others get the tokens
that they would have got without those that fail.

Some failures take long: a function that cannot be called takes the whole deadline of a layer. So after `_MOST_SLOW`
failures that took `_SLOW_SECONDS` each, or `_MOST_SECONDS` after the first failure, whoever has not run yet fails too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.engine.batch import Batch
from faasmoe.engine.experts.costs import COLD_STARTS, COSTS, StepCosts
from faasmoe.engine.request_state import RequestState
from faasmoe.errors import FunctionError, PlatformError

_SLOW_SECONDS = 5.0
_MOST_SLOW = 2
_MOST_SECONDS = 30.0

Forward = Callable[[Batch], Tensor]
Again = Callable[[Batch, Sequence[int]], Batch | None]


@dataclass(frozen=True, slots=True)
class Bill:
    """A request's part of the costs of a step: `costs` as `COSTS`, and seconds of the orchestrator's CPU time."""

    running: RequestState
    costs: NDArray[np.float64]
    cpu_seconds: float


@dataclass(slots=True)
class StepOutcome:
    """The outcome of a step: its parts with their logits, the requests that failed with their errors, and the costs."""

    done: list[tuple[Batch, Tensor]] = field(default_factory=list)
    failed: list[tuple[RequestState, Exception]] = field(default_factory=list)
    bills: list[Bill] = field(default_factory=list)

    @property
    def typical(self) -> bool:
        """True if it has met no cold start and no failure, so that its time is that of its rows."""
        return len(self.done) == 1 and not any(bill.costs[COLD_STARTS] for bill in self.bills)


class Attempts:
    """Runs one step. `forward` runs a batch on the model; `costs` are what its experts add to meanwhile.

    `again` makes a batch of some of another's members, without those that are no longer wanted; None if none is.
    """

    def __init__(
        self, forward: Forward, again: Again, costs: StepCosts, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._forward = forward
        self._again = again
        self._costs = costs
        self._clock = clock
        self._outcome = StepOutcome()
        self._lost: list[Bill] = []  # for attempts that have failed
        self._slow = 0  # failures
        self._first: float | None = None  # when something failed first

    def run(self, batch: Batch, cpu: float) -> StepOutcome:
        """Run `batch`, whose CPU time counts from `cpu` on (`time.process_time`)."""
        parts: list[Batch] = [batch]
        while parts:
            part, started = parts.pop(), self._clock()
            try:
                logits = self._forward(part)
            except Exception as error:  # noqa: BLE001 - whatever it is, others must not suffer from it
                part.restore()
                cpu = self._bill(part, cpu, self._lost)
                parts = self._divided(part, error, self._clock() - started, parts)
            else:
                cpu = self._bill(part, cpu, self._outcome.bills)
                self._outcome.done.append((part, logits))
        self._bill_lost()
        return self._outcome

    def _divided(self, part: Batch, error: Exception, seconds: float, others: list[Batch]) -> list[Batch]:
        """The parts to run after `part` has failed."""
        self._slow += seconds >= _SLOW_SECONDS
        first = self._first = self._clock() if self._first is None else self._first
        everybody = range(len(part.members))
        if self._slow >= _MOST_SLOW or self._clock() - first >= _MOST_SECONDS:
            for each in (part, *others):
                self._fail(each.members, error)
            return []
        if part.speculates and seconds < _SLOW_SECONDS:  # a guess fails nobody
            alone = self._again(part, everybody)
            return [*others, alone] if alone else others
        named = self._named(part, error)
        blamed = [i for i in everybody if named is None or i in named]
        parts = [[i for i in everybody if named is not None and i not in named]]
        if len(blamed) == 1 or (named is not None and seconds >= _SLOW_SECONDS):
            self._fail([part.members[i] for i in blamed], error)
        else:
            half = len(blamed) // 2
            parts += [blamed[:half], blamed[half:]]
        made = [self._again(part, members) for members in parts if members]
        return [*others, *(batch for batch in reversed(made) if batch is not None)]

    def _named(self, part: Batch, error: Exception) -> set[int] | None:
        """Members whose tokens were sent to the function that failed; None if that cannot be told."""
        if not isinstance(error, FunctionError | PlatformError):
            return None
        rows = self._costs.rows_sent_to(error.function)
        if not len(rows):
            return None
        counts = [work.count for work in part.work]
        return set(np.repeat(np.arange(len(counts)), counts)[rows].tolist())

    def _fail(self, members: Sequence[RequestState], error: Exception) -> None:
        self._outcome.failed += [(running, error) for running in members]

    def _bill(self, part: Batch, since: float, bills: list[Bill]) -> float:
        """Split what an attempt has cost. Returns the CPU time up to which that is."""
        now = time.process_time()
        counts = [work.count for work in part.work]
        a_token = (now - since) / sum(counts)
        for running, count, costs in zip(part.members, counts, self._costs.split(counts), strict=True):
            bills.append(Bill(running, costs, a_token * count))
        return now

    def _bill_lost(self) -> None:
        """Attempts that failed are paid for by those who have failed, or by all if in the end nobody has."""
        failed = [running for running, _ in self._outcome.failed]
        if not failed:
            self._outcome.bills += self._lost
            return
        costs = sum((bill.costs for bill in self._lost), np.zeros(len(COSTS))) / len(failed)
        seconds = sum(bill.cpu_seconds for bill in self._lost) / len(failed)
        self._outcome.bills += [Bill(running, costs, seconds) for running in failed]
