"""Workloads whose requests come by the clock, whether earlier ones have ended or not."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from random import Random
from statistics import NormalDist

from faasmoe.errors import OptionError
from faasmoe.evaluation.workloads.ask import Ask, Lengths

# Shahrad et al., "Serverless in the Wild", USENIX ATC 2020, section 3.3, on all of Azure Functions in July 2019: 45 %
# of applications are called once an hour or less on average, 81 % once a minute or less. The log-normal distribution
# of calls a day through these two points has this standard deviation of the logarithm. (It gives the busiest 19 % of
# applications 99.9 % of all calls; the paper counts 99.6 %.)
_PER_HOUR, _PER_MINUTE = (math.log(24), 0.45), (math.log(24 * 60), 0.81)
POPULARITY_SPREAD = (_PER_MINUTE[0] - _PER_HOUR[0]) / (
    NormalDist().inv_cdf(_PER_MINUTE[1]) - NormalDist().inv_cdf(_PER_HOUR[1])
)
# How a tenant's calls are spread over time is drawn there, not told in numbers: many applications have gaps whose
# coefficient of variation is far above 1. These are our choice: bursts of 8 on average, a second apart, with
# log-normal pauses, which gives coefficients around 9.
_BURST = 8.0
_WITHIN = 1.0  # seconds
_PAUSE_SPREAD = 1.5


def poisson(
    tenants: int, rate: float, seconds: float, seed: int = 0, lengths: Lengths | None = None
) -> Iterator[Ask]:
    """`rate` requests a second of all tenants together, each of them alike. Raises `OptionError`."""
    _check(tenants, rate, seconds)
    return _poisson(tenants, rate, seconds, Random(seed), lengths or Lengths())


def bursty(
    tenants: int, rate: float, seconds: float, seed: int = 0, lengths: Lengths | None = None
) -> Iterator[Ask]:
    """`rate` requests a second on average, of tenants that are of very unequal size and silent most of the time.

    Sizes are those of Azure Functions' applications: quantiles of a log-normal distribution, so that every seed has
    the same sizes. Few tenants are as unequal as many: there, 18.6 % of applications have 99.6 % of all calls, and here
    the largest of 6 has 94 %, the largest of 20 has 84 %. Every tenant begins in a pause that a short time can be too
    short for, or too long: `rate` is what long times have. Raises `OptionError`.
    """
    _check(tenants, rate, seconds)
    logs = [POPULARITY_SPREAD * NormalDist().inv_cdf((n + 0.5) / tenants) for n in range(tenants)]
    sizes = [math.exp(size - max(logs)) for size in logs]
    lengths = lengths or Lengths()
    streams = [
        _on_off(name_of(n), rate * size / sum(sizes), seconds, Random(f"{seed}/{n}"), lengths)
        for n, size in enumerate(sizes)
    ]
    return heapq.merge(*streams, key=lambda ask: ask.time or 0.0)


def _poisson(tenants: int, rate: float, seconds: float, random: Random, lengths: Lengths) -> Iterator[Ask]:
    time = random.expovariate(rate)
    while time < seconds:
        yield Ask(time, name_of(random.randrange(tenants)), *lengths.draw(random))
        time += random.expovariate(rate)


def _on_off(tenant: str, rate: float, seconds: float, random: Random, lengths: Lengths) -> Iterator[Ask]:
    """One tenant: bursts whose gaps are exponential, and pauses of such a mean that `rate` comes out."""
    within = min(_WITHIN, 0.2 / rate)
    pause = _BURST / rate - (_BURST - 1) * within
    location = math.log(pause) - _PAUSE_SPREAD**2 / 2
    time = random.uniform(0, 1) * random.lognormvariate(location, _PAUSE_SPREAD)  # in the midst of a pause
    while time < seconds:
        yield Ask(time, tenant, *lengths.draw(random))
        if random.random() < 1 / _BURST:
            time += random.lognormvariate(location, _PAUSE_SPREAD)
        else:
            time += random.expovariate(1 / within)


def name_of(tenant: int) -> str:
    """The name of tenant number `index`, from 0."""
    return f"tenant-{tenant}"


def _check(tenants: int, rate: float, seconds: float) -> None:
    if tenants < 1:
        raise OptionError(f"tenants {tenants}: must be at least 1")
    for name, value in (("rate", rate), ("seconds", seconds)):
        if not 0 < value < math.inf:
            raise OptionError(f"{name} {value}: must be above 0")
