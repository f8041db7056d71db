from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from faasmoe.errors import MeasurementError
from faasmoe.evaluation.meters import sampler as sampler_module
from faasmoe.evaluation.meters.budget import SHARE
from faasmoe.evaluation.meters.meter import MeasuredUsage, MeterCost, integral
from faasmoe.evaluation.meters.processes import Family
from faasmoe.evaluation.meters.sampler import ResourceSampler, _append, run
from tests.unit.evaluation.meters.played import Clocks

USAGE = MeasuredUsage(
    times=[0.0, 1.0, 3.0],
    pss={"orchestrator": [2_000_000_000] * 3, "instances": [0, 1_000_000_000, 1_000_000_000]},
    cpu={"orchestrator": [0.0, 0.5, 1.5], "instances": [0.0, 0.0, 3.0]},
    resident_times=[],
    resident={},
    meter=MeterCost(0.1, 3, 0),
)


def test_peaks_averages_and_gb_seconds() -> None:
    assert USAGE.seconds == 3
    assert USAGE.peak == {"orchestrator": 2_000_000_000, "instances": 1_000_000_000}
    assert USAGE.total == [2_000_000_000, 3_000_000_000, 3_000_000_000]
    assert USAGE.gb_seconds == {"orchestrator": 6, "instances": 2.5}
    assert USAGE.mean["instances"] == pytest.approx(2.5e9 / 3)
    assert USAGE.cpu_seconds == {"orchestrator": 1.5, "instances": 3}
    assert USAGE.cpu_percent == pytest.approx(150)


def test_integrals_are_of_the_curve_through_the_points() -> None:
    assert integral([0, 2, 3], [0, 2, 2]) == 4
    assert integral([5], [7]) == 0


def test_roles_that_come_later_were_nothing_before() -> None:
    columns: dict[str, list[int]] = {}
    for number, row in enumerate([{"a": 1}, {"a": 2, "b": 5}, {"b": 6}]):
        _append(columns, row, number, missing=0)
    assert columns == {"a": [1, 2, 0], "b": [0, 5, 6]}


def test_the_meters_share_is_of_the_time_that_was_measured() -> None:
    assert USAGE.meter_share == pytest.approx(0.1 / 3)


def test_rows_of_a_sampler_are_complete(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.write_bytes(bytes(100))  # just now, so it is in the page cache
    sampler = ResourceSampler(Family(os.getpid(), "me"), {"code": [(str(code), 0, 100)]}, SHARE)
    sampler.begin()
    sampler.sample()
    used = sampler.end()
    columns = sampler.columns()
    assert len(columns["times"]) == len(columns["pss"]["me"]) == len(columns["cpu"]["me"]) == 3
    assert columns["times"][0] == 0
    assert columns["resident"] == {"code": [100, 100]}  # asked for at the beginning and at the end
    assert columns["resident_times"] == [0, columns["times"][-1]]
    assert columns["pss"]["me"][0] > 10_000_000
    assert sampler.walks >= 2
    assert 0 < used < time.process_time()


def test_what_does_not_run_cannot_be_measured() -> None:
    with pytest.raises(MeasurementError, match="does not run"):
        ResourceSampler(Family(2**22 + 1, "gone"), {}, SHARE).begin()


def test_samples_come_as_often_as_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """One takes 6 ms, of which 15 thousandths of a core may be: there is one each 0.4 s, not each 0.1 s."""
    clocks, samples = Clocks(), []
    monkeypatch.setattr(sampler_module.time, "monotonic", clocks.now)

    def select(*asked: Any) -> tuple[list[int], list[int], list[int]]:
        clocks.wall += asked[3]
        return [1] if clocks.wall > 4.1 else [], [], []

    monkeypatch.setattr(sampler_module.select, "select", select)
    played = SimpleNamespace(cost=0.006, sample=lambda: samples.append(clocks.wall))
    run(played, 0.1)  # type: ignore[arg-type]
    assert samples == pytest.approx([0.4 * n for n in range(1, 11)])
