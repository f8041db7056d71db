from __future__ import annotations

from collections import Counter
from itertools import pairwise
from statistics import mean, pstdev

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.workloads.arrivals import POPULARITY_SPREAD, bursty, poisson
from faasmoe.evaluation.workloads.ask import Lengths


@pytest.mark.parametrize("workload", [poisson, bursty])
def test_the_rate_is_what_was_asked_for(workload) -> None:
    asks = list(workload(20, 2.0, 40_000, seed=1))
    assert len(asks) == pytest.approx(80_000, rel=0.15)
    times = [ask.time for ask in asks]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 40_000


@pytest.mark.parametrize("workload", [poisson, bursty])
def test_seeds_repeat(workload) -> None:
    lengths = Lengths(100, 20, 0.5)
    assert list(workload(5, 1.0, 100, 7, lengths)) == list(workload(5, 1.0, 100, 7, lengths))
    assert list(workload(5, 1.0, 100, 7, lengths)) != list(workload(5, 1.0, 100, 8, lengths))


def test_bursty_tenants_are_of_unequal_size() -> None:
    counts = Counter(ask.tenant for ask in bursty(100, 10.0, 20_000))
    busiest = sum(count for _, count in counts.most_common(19))
    assert busiest / counts.total() > 0.99  # Shahrad et al.: 18.6 % of applications have 99.6 % of the calls
    assert pytest.approx(4.08, abs=0.01) == POPULARITY_SPREAD


@pytest.mark.parametrize(("tenants", "share"), [(6, 0.94), (20, 0.84)])
def test_few_tenants_are_as_unequal_as_the_trace_says(tenants: int, share: float) -> None:
    counts = Counter(ask.tenant for ask in bursty(tenants, 10.0, 20_000))
    assert counts.most_common(1)[0][1] / counts.total() == pytest.approx(share, abs=0.03)


def test_gaps_of_a_bursty_tenant_vary_far_more_than_poisson() -> None:
    def variation(workload) -> float:
        times = [ask.time for ask in workload(1, 0.05, 4_000_000, seed=2)]
        gaps = [b - a for a, b in pairwise(times)]
        return pstdev(gaps) / mean(gaps)

    assert variation(poisson) == pytest.approx(1, abs=0.05)
    assert variation(bursty) > 5


def test_lengths_have_the_median_that_was_asked_for() -> None:
    asks = list(poisson(1, 1.0, 5000, lengths=Lengths(200, 10, 0.8)))
    prompts = sorted(ask.prompt for ask in asks)
    assert prompts[len(prompts) // 2] == pytest.approx(200, rel=0.1)
    assert prompts[0] < 50 < 800 < prompts[-1]
    assert {ask.max_tokens for ask in poisson(1, 1.0, 50, lengths=Lengths(1, 10))} == {10}


def test_nonsense_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match="rate 0: must be above 0"):
        poisson(1, 0, 10)
    with pytest.raises(OptionError, match="tenants 0"):
        bursty(0, 1, 10)
    with pytest.raises(OptionError, match="answer length 0"):
        Lengths(1, 0)
