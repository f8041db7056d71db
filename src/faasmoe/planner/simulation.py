"""Simulates steps of orchestrators on one machine, step by step, with expected values for routing and cold starts.

The scheduler is the engine's in outline: a step takes one token of every sequence that decodes and a chunk of prompts.
Where several orchestrators have work they take turns, a step each. How long a step lasts follows from what it reads
and computes; which functions it touches and which of them are cold, from `routing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.kernels.compiled import compiled
from faasmoe.planner.routing import GRID, Array

MOST_STEPS = 2_000_000
_MOST_RUNNING = 4096  # sequences; with more the machine cannot keep up, and there is no point in going on

Int = NDArray[np.int64]


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
    split: float  # calls for each function touched
    layers: int
    fixed_seconds: float  # of each step
    expert_seconds: float  # to read one
    token_seconds: float  # to compute one, if reading did not take longer
    call_seconds: float
    sequence_seconds: float  # of each decode beyond the first
    cold_seconds: float  # of one that starts alone
    cold_serial_seconds: float  # of each of those that start side by side
    cores: int


@dataclass(frozen=True, slots=True)
class SimulationLimits:
    """The limits of an orchestrator's steps, as in `EngineOptions`."""

    sequences: int = 64
    step_tokens: int = 512
    prompt_tokens: int = 128


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
    taken = _simulate(
        asked, requests.after, then, requests.engine, requests.prompt, requests.answer, first, end, steps,
        (GRID, costs.functions, costs.functions_together, costs.alike, costs.experts),
        (costs.split, float(costs.layers), costs.fixed_seconds, costs.expert_seconds, costs.token_seconds,
         costs.call_seconds, costs.sequence_seconds, costs.cold_seconds, costs.cold_serial_seconds, float(costs.cores)),
        (limits.sequences, limits.step_tokens, limits.prompt_tokens, _MOST_RUNNING),
        keep_alive, window,
    )  # fmt: skip
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


@compiled
def _simulate(  # type: ignore[no-untyped-def]
    times, after, then, engines, prompts, answers, first, end, steps, curves, costs, limits, keep_alive, window
):
    running = np.empty(limits[3], dtype=np.int64)  # requests in order of arrival
    left_prompt, left_answer = prompts.copy(), answers.copy()
    chunk = np.zeros(len(times), dtype=np.int64)  # of its prompt in this step; -1: it takes no part
    cumulative = np.zeros(len(steps) + 1)
    count, arrived, taken, old = 0, 0, 0, 0
    now, turn = 0.0, -1
    while taken < len(steps):
        while arrived < len(times) and (after[arrived] >= 0 or times[arrived] <= now):
            if count == len(running):
                return taken
            if after[arrived] < 0:
                running[count] = arrived
                count += 1
            arrived += 1
        if count == 0:
            if arrived == len(times):
                return taken
            now = times[arrived]
            continue
        turn = _next_engine(running[:count], engines, turn)
        decodes, prompt_tokens = _fill(running[:count], engines, turn, left_prompt, limits, chunk)
        while old < taken and steps[old, 0] < now - keep_alive:
            old += 1
        recent = min(cumulative[taken] - cumulative[old], window)
        seconds, calls, cold, read = _cost(decodes, prompt_tokens, recent, curves, costs)
        now += seconds
        count = _advance(running, count, now, chunk, left_prompt, left_answer, times, then, first, end)
        tokens = decodes + prompt_tokens
        cumulative[taken + 1] = cumulative[taken] + tokens
        steps[taken] = np.array([now, float(tokens), calls, cold, read, seconds])
        taken += 1
    return taken


@compiled
def _next_engine(running, engines, turn):  # type: ignore[no-untyped-def]
    """The next one after `turn`, in a circle, that has work."""
    after, lowest = -1, -1
    for request in running:
        engine = engines[request]
        if lowest < 0 or engine < lowest:
            lowest = engine
        if engine > turn and (after < 0 or engine < after):
            after = engine
    return after if after >= 0 else lowest


@compiled
def _fill(running, engines, engine, left_prompt, limits, chunk):  # type: ignore[no-untyped-def]
    """Say in `chunk` who takes part in a step of `engine`. Returns its decodes and its tokens of prompts."""
    members, decodes = 0, 0
    for request in running:
        chunk[request] = -1
        if engines[request] == engine and members < limits[0]:
            members += 1
            chunk[request] = 0
            decodes += left_prompt[request] == 0
    room = min(limits[1] - decodes, limits[2]) if decodes else limits[1]
    prompt_tokens = 0
    for request in running:
        if chunk[request] == 0:
            chunk[request] = min(room - prompt_tokens, left_prompt[request])
            prompt_tokens += chunk[request]
    return decodes, prompt_tokens


@compiled
def _cost(decodes, prompt_tokens, recent, curves, costs):  # type: ignore[no-untyped-def]
    """Seconds, calls, cold starts and experts read of a step after `recent` tokens within keep-alive."""
    grid, functions, together, alike, experts = curves
    split, layers, fixed, per_expert, per_token, per_call, per_sequence, cold_alone, cold_serial, cores = costs
    tokens = decodes + prompt_tokens
    apart = decodes + np.interp(prompt_tokens, grid, alike)
    touched = functions[0] - np.interp(apart, grid, functions)
    read = experts[0] - np.interp(apart, grid, experts)
    fresh = together[0] - np.interp(tokens, grid, together)
    missing = np.interp(recent, grid, together) - np.interp(recent + tokens, grid, together)
    calls, cold = touched * split, touched * missing / fresh
    seconds = fixed + max(read * per_expert, tokens * per_token)
    seconds += calls * per_call / max(1.0, min(cores, calls / layers))
    seconds += max(0, decodes - 1) * per_sequence
    any_cold = 1.0 - np.exp(-cold / layers)  # in a layer
    seconds += layers * (any_cold * cold_alone + max(0.0, cold / layers - any_cold) * cold_serial)
    return seconds, calls, cold, read


@compiled
def _advance(  # type: ignore[no-untyped-def]
    running, count, now, chunk, left_prompt, left_answer, times, then, first, end
):
    """A step has ended. Returns how many are left, in order at the beginning of `running`."""
    kept = 0
    for place in range(count):
        request = running[place]
        if chunk[request] >= 0 and (chunk[request] > 0 or left_prompt[request] == 0):
            decoded = left_prompt[request] == 0
            left_prompt[request] -= chunk[request]
            if left_prompt[request] == 0:
                if not decoded:
                    first[request] = now
                left_answer[request] -= 1
        if left_prompt[request] == 0 and left_answer[request] == 0:
            end[request] = now
            request = then[request]
            if request >= 0:
                times[request] = now
        if request >= 0:
            running[kept] = request
            kept += 1
    return kept


def recent_tokens(run: SimulatedRun, keep_alive: float, horizon: float) -> tuple[Array, Array]:
    """Tokens computed in the last `keep_alive` seconds: the instants at which the number changes, and its values."""
    changes = np.concatenate([run.step_end, run.step_end + keep_alive])
    amounts = np.concatenate([run.step_tokens, -run.step_tokens])
    order = np.argsort(changes, kind="stable")
    times, levels = changes[order], np.cumsum(amounts[order])
    inside = times < horizon
    return times[inside], np.maximum(0.0, levels[inside])
