from __future__ import annotations

import math

import numpy as np
import pytest

from faasmoe.evaluation.statistics import _t, mean, paired_ratio, percentiles, ratio


def test_the_mean_has_students_interval() -> None:
    estimate = mean([9.8, 10.2, 10.4, 9.8, 10.0, 10.2])  # t(0.975, 5) = 2.5706
    assert estimate.value == pytest.approx(10.0667, abs=1e-4)
    assert estimate.deviation == pytest.approx(0.2422, abs=1e-4)
    assert estimate.half_width == pytest.approx(2.5706 * 0.2422 / math.sqrt(6), abs=1e-4)
    assert estimate.trials == 6


@pytest.mark.parametrize(
    ("freedom", "bound"),  # from published tables; 2.5 by scipy.stats.t.ppf
    [(1, 12.7062), (2, 4.30265), (2.5, 3.57465), (5, 2.57058), (30, 2.04227), (200, 1.97190), (1000, 1.96234)],
)
def test_bounds_of_students_distribution(freedom: float, bound: float) -> None:
    assert _t(freedom) == pytest.approx(bound, rel=1e-5)


def test_one_trial_has_no_interval() -> None:
    assert mean([3.0]).value == 3.0
    assert math.isnan(mean([3.0]).low)
    assert math.isnan(ratio([3.0], [2.0]).high)


def test_intervals_of_the_mean_hold_in_95_of_100() -> None:
    random = np.random.default_rng(0)
    hits = sum(e.low <= 5 <= e.high for e in (mean(list(random.normal(5, 2, 10))) for _ in range(2000)))
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_intervals_of_both_ratios_hold_in_95_of_100() -> None:
    random = np.random.default_rng(1)
    hits = {"fieller": 0, "paired": 0}
    for _ in range(2000):
        load = random.lognormal(0, 0.5, 10)  # what a pair has in common
        above, below = 3 * load * random.lognormal(0, 0.1, 10), load * random.lognormal(0, 0.1, 10)
        estimate = paired_ratio(list(above), list(below))
        hits["paired"] += estimate.low <= 3 <= estimate.high
        estimate = ratio(list(random.normal(6, 1, 10)), list(random.normal(2, 0.3, 10)))
        hits["fieller"] += estimate.low <= 3 <= estimate.high
    assert hits["paired"] / 2000 == pytest.approx(0.95, abs=0.015)
    assert hits["fieller"] / 2000 == pytest.approx(0.95, abs=0.02)


def test_pairs_take_out_what_trials_have_in_common() -> None:
    load = [1.0, 2.0, 4.0, 8.0]
    estimate = paired_ratio([2 * x for x in load], load)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2, 2, 2))
    assert ratio([2 * x for x in load], load).low < 1


def test_a_denominator_that_may_be_zero_bounds_nothing() -> None:
    assert ratio([1.0, 2.0, 3.0], [-1.0, 0.5, 1.0]).high == math.inf


def test_percentiles() -> None:
    assert percentiles(range(101)) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([7.0], (0.5,)) == {"p50": 7}


def test_what_says_nothing_is_refused() -> None:
    for samples in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="finite"):
            mean(samples)
    with pytest.raises(ValueError, match="no pairs"):
        paired_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="above 0"):
        paired_ratio([1.0, 0.0], [1.0, 2.0])
