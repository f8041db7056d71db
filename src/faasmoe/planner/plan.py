"""Compares settings under one load, and says which to use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from faasmoe.errors import OptionError
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.prediction import Prediction, predict
from faasmoe.planner.shape import ModelShape
from faasmoe.planner.simulation import SimulatedRequests

MOST_REQUESTS = 5000  # simulated
LEAST_REQUESTS = 500
SLOWER = 1.3  # p95 that the recommended setting may have, over the fastest possible one's


@dataclass(frozen=True, slots=True)
class Plan:
    """All predictions, and the best of them: None if nothing is possible."""

    predictions: tuple[Prediction, ...]
    best: Prediction | None
    reason: str


def requests_of(asks: Iterable[Ask]) -> SimulatedRequests:
    """Convert requests to arrays, at most `MOST_REQUESTS`. Four characters of text count as one token.

    A tenant's first request of a closed loop comes at once. Raises `OptionError` if there is none.
    """
    rows, numbers, last = [], {}, {}  # type: ignore[var-annotated]
    for ask in islice(asks, MOST_REQUESTS):
        after = last.get(ask.tenant, -1) if ask.time is None else -1
        time = ask.time if ask.time is not None else rows[after][0] if after >= 0 else 0.0
        prompt = ask.prompt if isinstance(ask.prompt, int) else max(1, len(ask.prompt) // 4)
        last[ask.tenant] = len(rows)
        rows.append((time, numbers.setdefault(ask.tenant, len(numbers)), prompt, ask.max_tokens, after))
    if not rows:
        raise OptionError("the workload has no requests")
    times, *columns = zip(*rows, strict=True)
    whole = (np.array(column, dtype=np.int64) for column in columns)
    return SimulatedRequests(np.array(times, dtype=float), *whole)


def seconds_to_simulate(rate: float, longest_keep_alive: float) -> float:
    """The time to simulate at `rate` requests a second: three times the keep-alive, up to `MOST_REQUESTS` requests."""
    return min(MOST_REQUESTS / rate, max(LEAST_REQUESTS / rate, 3 * longest_keep_alive))


def usual_block_sizes(shape: ModelShape) -> list[int]:
    """Block sizes to try: one expert, some sizes between, and a whole layer."""
    most = max(layer.experts for layer in shape.layers)
    return sorted({1, *(size for size in (5, 10, 20, 32) if size < most), most})


def make_plan(requests: SimulatedRequests, settings: Sequence[Setting], given: Conditions) -> Plan:
    """Predict every setting, and choose. Raises `OptionError` if one makes no sense."""
    predictions = tuple(predict(requests, setting, given) for setting in settings)
    possible = [prediction for prediction in predictions if prediction.possible]
    if not possible:
        return Plan(predictions, None, _why_not(predictions, given))
    fastest = min(one.end_to_end["p95"] for one in possible)
    quick = [one for one in possible if one.end_to_end["p95"] <= SLOWER * fastest]
    best = min(quick, key=lambda one: (one.cost_per_hour, one.end_to_end["p95"]))
    reason = f"costs least of those whose p95 is at most {SLOWER} times that of the fastest, {fastest:.2f} s"
    return Plan(predictions, best, reason)


def _why_not(predictions: Sequence[Prediction], given: Conditions) -> str:
    if not any(one.fits for one in predictions):
        fixed = min(one.memory_mean - one.memory["instances"] for one in predictions)
        return (
            f"{given.memory / 1e9:.1f} GB hold no setting: {fixed / 1e9:.1f} GB are taken before any function runs, "
            "and one token needs some at once"
        )
    load = min(one.utilisation for one in predictions if one.fits)
    return f"the load would take {load:.1f} times what this machine can do"
