"""Predicts memory, time and cost of one setting of block size, keep-alive and strategy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from faasmoe.errors import OptionError
from faasmoe.evaluation.statistics import percentiles
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.costs import least_bytes, step_costs
from faasmoe.planner.routing import GRID, untouched
from faasmoe.planner.shape import ModelShape
from faasmoe.planner.simulation import SimulatedRequests, SimulatedRun, recent_tokens, simulate
from faasmoe.planner.timeline import average_and_peak, running
from faasmoe.tenancy.totals import Totals

MOST_UTILISATION = 0.95  # beyond, waiting grows without bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The predicted figures of one setting. Memory is in bytes, times are in seconds."""

    setting: Setting
    fits: bool  # memory holds what one token needs, and peaks stay within it
    utilisation: float  # share of time with work; above 1, how many such machines the load would take
    functions: int
    memory: dict[str, float]  # time average by role
    memory_mean: float
    memory_peak: float
    memory_budget: int | None  # for the pool of functions, or for each node's; None: none is needed
    kv_cache: int  # of all orchestrators
    invocations_per_token: float  # of answers
    cold_starts_per_request: float
    invocations_per_hour: float
    gb_seconds_per_hour: float  # of everything, as held
    busy_gb_seconds_per_hour: float  # of instances while they compute
    idle_gb_seconds_per_hour: float  # by instances that wait for the next call
    cost_per_hour: float  # of these three, in the prices' currency
    time_to_first_token: dict[str, float]
    time_per_output_token: dict[str, float]
    end_to_end: dict[str, float]

    @property
    def possible(self) -> bool:
        """Whether memory and speed are sufficient."""
        return self.fits and self.utilisation <= MOST_UTILISATION


def predict(requests: SimulatedRequests, setting: Setting, given: Conditions) -> Prediction:
    """Simulate `requests` under one setting.

    Raises `OptionError` if the block size fits no layer, or if all requests come at once, which is no load that lasts.
    """
    shape, footprint = given.shape, given.footprint
    if not 1 <= setting.block_size <= max(layer.experts for layer in shape.layers):
        most = max(layer.experts for layer in shape.layers)
        raise OptionError(f"--block-size {setting.block_size}: must be 1 to {most}, the experts of a layer")
    curves = untouched(shape, setting.block_size, given.activations)
    weights, there = curves.bytes_together[0] - curves.bytes_together, curves.together[0] - curves.together
    # by recent tokens: bytes that instances take, and those that count against the pool's budget
    instances = weights + footprint.instance * there
    charged = weights + given.overheads.instance_bytes * there
    engine = requests.engine if setting.strategy == "private" else np.zeros_like(requests.engine)
    kv_cache = _kv_cache(requests, shape)
    _, counts = running(engine, requests.times, requests.times + given.orchestrator_keep_alive)
    budget = _budget(given, _fixed(given, kv_cache, float(counts.max())))
    least = least_bytes(given, setting.block_size)
    window = float(np.interp(budget, charged, GRID)) if budget < charged[-1] else math.inf
    costs = step_costs(given, setting)
    run = simulate(replace(requests, engine=engine), costs, given.limits, setting.keep_alive, max(window, 0.0))
    if not run.asked.any():
        raise OptionError(
            "the requests all come at the start: give them times, or a tenant several that follow each other"
        )
    asked = replace(requests, engine=engine, times=run.asked)
    return _summary(asked, run, setting, given, instances, window, kv_cache, budget >= least, budget)


def _summary(
    requests: SimulatedRequests, run: SimulatedRun, setting: Setting, given: Conditions, instances: np.ndarray,
    window: float, kv_cache: int, fits: bool, budget: int,
) -> Prediction:  # fmt: skip
    footprint, shape = given.footprint, given.shape
    horizon = float(run.step_end[-1]) if run.saturated else max(float(requests.times[-1]), float(run.step_end[-1]))
    start = horizon / 5 if given.count_from is None else given.count_from
    memory, peak = _memory(requests, run, setting, given, instances, window, kv_cache, start, horizon)
    counted = (requests.times >= start) & ~np.isnan(run.end)
    steps = run.step_end >= start
    hours = (horizon - start) / 3600
    answered = max(1, int(requests.answer[counted].sum()))
    calls = float(run.step_calls[steps].sum())
    block = setting.block_size * shape.layers[0].expert_bytes + footprint.instance
    busy = run.step_experts[steps].sum() * shape.layers[0].expert_bytes / given.machine.bandwidth
    busy_gb = float(busy + calls * given.machine.call) * block / 1e9
    mean = sum(memory.values())
    idle_gb = max(0.0, memory["instances"] / 1e9 * 3600 - busy_gb / hours)
    used = Totals(gb_seconds=busy_gb / hours, idle_gb_seconds=idle_gb, invocations=calls / hours)
    return Prediction(
        setting=setting,
        fits=fits and peak <= given.capacity,
        utilisation=_utilisation(requests, run),
        functions=untouched(shape, setting.block_size, given.activations).functions,
        memory=memory,
        memory_mean=mean,
        memory_peak=peak,
        memory_budget=None if math.isinf(window) else budget // given.nodes + footprint.platform,
        kv_cache=kv_cache,
        invocations_per_token=calls / answered if counted.any() else math.inf,
        cold_starts_per_request=float(run.step_cold[steps].sum()) / counted.sum() if counted.any() else math.inf,
        invocations_per_hour=calls / hours,
        gb_seconds_per_hour=mean / 1e9 * 3600,
        busy_gb_seconds_per_hour=busy_gb / hours,
        idle_gb_seconds_per_hour=idle_gb,
        cost_per_hour=float(given.prices.cost(used)),
        **_latencies(requests, run, counted),
    )


def _memory(
    requests: SimulatedRequests, run: SimulatedRun, setting: Setting, given: Conditions, instances: np.ndarray,
    window: float, kv_cache: int, start: float, horizon: float,
) -> tuple[dict[str, float], float]:  # fmt: skip
    """Bytes by role, averaged from `start` to `horizon`, and the peak of all together."""
    footprint, dense = given.footprint, given.shape.dense_bytes - given.shape.table_bytes
    times, recent = recent_tokens(run, setting.keep_alive, horizon)
    held = np.interp(np.minimum(recent, window), GRID, instances)
    mean_instances, peak_instances = average_and_peak(times, held, start, horizon)
    zygote = recent_tokens(run, setting.keep_alive + given.overheads.idle_seconds, horizon)
    zygote_up, _ = average_and_peak(zygote[0], (zygote[1] > 0).astype(float), start, horizon)
    ends = np.where(np.isnan(run.end), horizon, run.end)
    keep = given.orchestrator_keep_alive
    engines, most = average_and_peak(*running(requests.engine, requests.times, ends + keep), start, horizon)
    template = running(np.zeros_like(requests.engine), requests.times, ends + 2 * keep)  # idles as long again
    loaded, _ = average_and_peak(*template, start, horizon)
    memory = {
        "gateway": float(footprint.gateway),
        "orchestrator": loaded * (footprint.orchestrator + dense + kv_cache)
        + engines * footprint.each_orchestrator(given.shape.width),
        "platform": zygote_up * given.nodes * footprint.platform,
        "instances": mean_instances,
    }
    peak = _fixed(given, kv_cache, most) + given.nodes * footprint.platform + peak_instances
    return memory, peak


def _budget(given: Conditions, fixed: float) -> int:
    """Bytes for instances: what is left where the orchestrators run, or what the nodes have. Below 0: too little."""
    platform = given.footprint.platform
    if given.cluster is None:
        return int(given.memory - fixed - platform)
    return given.nodes * (given.cluster.memory - platform) if fixed <= given.memory else -1


def _fixed(given: Conditions, kv_cache: int, orchestrators: float) -> float:
    """Bytes of the gateway, the template, and `orchestrators` of it."""
    foot = given.footprint
    processes = foot.gateway + foot.orchestrator + orchestrators * foot.each_orchestrator(given.shape.width)
    return processes + given.shape.dense_bytes + kv_cache


def _utilisation(requests: SimulatedRequests, run: SimulatedRun) -> float:
    busy = float(run.step_seconds.sum()) / float(requests.times.max())
    if not run.saturated:
        return busy
    done = ~np.isnan(run.end)
    return float(requests.answer.sum() / max(1, requests.answer[done].sum()))


def _latencies(requests: SimulatedRequests, run: SimulatedRun, counted: np.ndarray) -> dict[str, dict[str, float]]:
    if not counted.any():
        nothing = dict.fromkeys(("p50", "p95", "p99"), math.inf)
        return {"time_to_first_token": nothing, "time_per_output_token": nothing, "end_to_end": nothing}
    first, end = run.first[counted], run.end[counted]
    more = requests.answer[counted] - 1
    each = ((end - first)[more > 0] / more[more > 0]) if (more > 0).any() else np.zeros(1)
    start = requests.times[counted]
    return {
        "time_to_first_token": percentiles(first - start),
        "time_per_output_token": percentiles(each),
        "end_to_end": percentiles(end - start),
    }


def _kv_cache(requests: SimulatedRequests, shape: ModelShape) -> int:
    """Bytes of KV caches: those of all requests, which are kept for reuse, but no more than 16 of the largest."""
    lengths, counts = np.unique(requests.prompt + requests.answer, return_counts=True)
    sizes = [shape.state.nbytes(int(length)) for length in lengths]
    needed = sum(size * int(count) for size, count in zip(sizes, counts, strict=True))
    return min(needed, 16 * sizes[-1])
