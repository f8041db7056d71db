"""Simulates steps of orchestrators, step by step, with expected values for routing and cold starts.

The scheduler is the engine's in outline: a step takes one token of every sequence that decodes and a chunk of prompts.
Where several orchestrators have work they take turns, a step each. How long a step lasts follows from what it reads
and computes; which functions it touches and which of them are cold, from `routing`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.engine.prompt_budget import FIRST
from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY
from faasmoe.planner.routing import GRID, Array
from faasmoe.protocol.config import EngineOptions

MOST_STEPS = 2_000_000
_ENGINE = EngineOptions()
_MOST_RUNNING = 4096  # sequences; with more the machine cannot keep up, and there is no point in going on

Int = NDArray[np.int64]

_simulate = LIBRARY.function("simulate", *(5 * [ADDRESS]), result=INT)


@dataclass(frozen=True, slots=True)
class SimulatedRequests:
    """The requests in order of time. `engine` is the number of the orchestrator that serves each.

    One that comes `after` another, as in a closed loop, comes when that has ended, and has its time.
    """

    times: Array  # seconds
    engine: Int
    prompt: Int  # tokens
    answer: Int  # tokens
    after: Int  # an earlier request, which no other comes after; -1: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs of steps. The curves are over `GRID`, all layers together."""

    functions: Array  # untouched functions, by tokens of different texts
    functions_together: Array  # by consecutive tokens
    alike: Array  # tokens of different texts that touch as many as so many consecutive ones
    experts: Array  # untouched experts, by tokens of different texts
    busiest: Array  # the same with what is touched counted as on the busiest node
    split: float  # calls for each function touched
    layers: int
    fixed_seconds: float  # of each step
    expert_seconds: float  # to read one
    token_seconds: float  # to compute one, if reading did not take longer
    wire_seconds: float  # to send the rows of one
    call_seconds: float
    sequence_seconds: float  # of each decode beyond the first
    cold_seconds: float  # of one that starts alone
    cold_serial_seconds: float  # of each of those that start side by side
    cores: int


@dataclass(frozen=True, slots=True)
class SimulationLimits:
    """The limits of an orchestrator's steps, as in `EngineOptions`."""

    sequences: int = _ENGINE.max_sequences
    step_tokens: int = _ENGINE.max_step_tokens
    prompt_tokens: int = FIRST  # beside decodes; an engine begins with it, and then measures


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """The result of a simulation. Requests that did not end have NaN."""

    asked: Array  # instant
    first: Array  # instant of each request's first token
    end: Array
    step_end: Array
    step_tokens: Array
    step_calls: Array
    step_cold: Array
    step_experts: Array  # experts read
    step_seconds: Array
    saturated: bool  # it was given up


def simulate(
    requests: SimulatedRequests, costs: Costs, limits: SimulationLimits, keep_alive: float, window: float
) -> SimulatedRun:
    """Serve all requests. `window` bounds, in tokens, for how long an untouched instance stays: memory is scarce.

    Ends early if the machine cannot keep up.
    """
    count = len(requests.times)
    asked, first, end = requests.times.copy(), np.full(count, np.nan), np.full(count, np.nan)
    then = np.full(count, -1)  # who comes after each
    then[requests.after[requests.after >= 0]] = np.flatnonzero(requests.after >= 0)
    most = int(min(MOST_STEPS, (requests.answer + requests.prompt // limits.step_tokens + 2).sum()))
    steps = np.zeros((most, 6))
    limited = struct.pack("3q2d", limits.sequences, limits.step_tokens, limits.prompt_tokens, keep_alive, window)
    taken = _run(replace(requests, times=asked), then, costs, limited, first, end, steps)
    done = steps[:taken]
    ends, tokens, calls, cold, experts, seconds = done.T
    return SimulatedRun(
        asked=asked,
        first=first,
        end=end,
        step_end=ends,
        step_tokens=tokens,
        step_calls=calls,
        step_cold=cold,
        step_experts=experts,
        step_seconds=seconds,
        saturated=bool(np.isnan(end).any()),
    )


def _run(
    requests: SimulatedRequests, then: Int, costs: Costs, limits: bytes, first: Array, end: Array, steps: Array
) -> int:
    """Write what comes of it into `requests.times`, `first`, `end` and `steps`. Returns how many steps it took."""
    count = len(requests.times)
    cumulative, together = np.empty(len(steps) + 1), np.empty(_MOST_RUNNING, np.int64)
    left = requests.prompt.copy(), requests.answer.copy(), np.empty(count, np.int64)
    # Structs of simulation.c: `requests`, `curves`, `costs`, `limits`, `room`
    taken: int = _simulate(
        struct.pack("10q", count, *_places(count, float, requests.times), *_places(count, int, requests.after, then),
                    *_places(count, int, requests.engine, *left), *_places(count, float, first, end)),
        struct.pack("7q", len(GRID), *_places(len(GRID), float, GRID, costs.functions, costs.functions_together,
                                              costs.alike, costs.experts, costs.busiest)),
        struct.pack("11d", costs.split, costs.layers, costs.fixed_seconds, costs.expert_seconds, costs.token_seconds,
                    costs.wire_seconds, costs.call_seconds, costs.sequence_seconds, costs.cold_seconds,
                    costs.cold_serial_seconds, costs.cores),
        limits,
        struct.pack("5q", len(steps), _MOST_RUNNING, *map(address, (steps, cumulative, together))),
    )  # fmt: skip
    return taken


def _places(count: int, dtype: type, *arrays: NDArray[Any]) -> list[int]:
    """Addresses. Raises `ValueError` if an array is not of `count` numbers of `dtype`."""
    for array in arrays:
        if array.shape != (count,) or array.dtype != dtype:
            raise ValueError(f"an array {array.shape} of {array.dtype} instead of {count} {np.dtype(dtype)}")
    return [address(array) for array in arrays]


def recent_tokens(run: SimulatedRun, keep_alive: float, horizon: float) -> tuple[Array, Array]:
    """Tokens computed in the last `keep_alive` seconds: the instants at which the number changes, and its values."""
    changes = np.concatenate([run.step_end, run.step_end + keep_alive])
    amounts = np.concatenate([run.step_tokens, -run.step_tokens])
    order = np.argsort(changes, kind="stable")
    times, levels = changes[order], np.cumsum(amounts[order])
    inside = times < horizon
    return times[inside], np.maximum(0.0, levels[inside])
