from __future__ import annotations

import pytest

from faasmoe.evaluation.meters.meter import MeasuredUsage, MeterCost
from faasmoe.evaluation.meters.thinning import thinned


def usage(instances: list[int]) -> MeasuredUsage:
    count = len(instances)
    return MeasuredUsage(
        times=[n / 10 + 0.00012 for n in range(count)],
        pss={"orchestrator": [1_000_000] * count, "instances": instances},
        cpu={"orchestrator": [n / 100 for n in range(count)], "instances": [0.0] * count},
        resident_times=[0.0004],
        resident={"weights": [5]},
        meter=MeterCost(0.1, count, 0),
    )


def test_a_second_of_nothing_new_is_one_sample() -> None:
    before = usage([500_000] * 101)
    after = thinned(before)
    assert len(after.times) == 11
    assert after.seconds == pytest.approx(before.seconds, abs=0.001)
    assert after.cpu_seconds == before.cpu_seconds
    assert after.meter.samples == 101


def test_changes_and_peaks_are_kept_where_they_were() -> None:
    before = usage([0] * 25 + [500_000] * 30 + [501_000] + [500_000] * 20 + [0] * 25)
    after = thinned(before)
    assert len(after.times) < 20
    assert max(after.total) == max(before.total) == 1_501_000
    assert after.peak == before.peak
    for role, amount in before.gb_seconds.items():
        assert after.gb_seconds[role] == pytest.approx(amount, rel=0.01)


def test_a_single_sample_stays() -> None:
    assert thinned(usage([3])).total == [1_000_003]
