from __future__ import annotations

import os
from pathlib import Path

import pytest

from faasmoe.errors import MeasurementError
from faasmoe.evaluation.meters import sampler as sampler_module
from faasmoe.evaluation.meters.meter import MeterCost, Usage, integral
from faasmoe.evaluation.meters.processes import Family, Seen
from faasmoe.evaluation.meters.sampler import Memory, Sampler, _append

USAGE = Usage(
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


def test_rows_of_a_sampler_are_complete(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.write_bytes(bytes(100))  # just now, so it is in the page cache
    sampler = Sampler(Family(os.getpid(), "me"), {"code": [(str(code), 0, 100)]}, 0.1)
    sampler.sample()
    sampler.sample(last=True)
    columns = sampler.columns()
    assert len(columns["times"]) == len(columns["pss"]["me"]) == len(columns["cpu"]["me"]) == 2
    assert columns["resident"] == {"code": [100, 100]}
    assert columns["pss"]["me"][0] > 10_000_000


def test_what_does_not_run_cannot_be_measured() -> None:
    with pytest.raises(MeasurementError, match="does not run"):
        Sampler(Family(2**22 + 1, "gone"), {}, 0.1).sample()


def test_a_look_without_time_takes_new_processes_and_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(sampler_module, "proportional_set_size", lambda pid: looked.append(pid) or 10 * pid)
    clock = iter(range(1000))
    monkeypatch.setattr(sampler_module.time, "process_time", lambda: next(clock))
    memory = Memory(1.5)  # one look at an old process
    processes = [Seen(pid, 0, pid, 0.0, 0.0) for pid in (1, 2, 3, 4)]
    memory.look({"a": processes[:3]})
    memory.look({"a": processes})
    memory.look({"a": processes})
    assert looked == [1, 2, 3, 4, 1, 2]
    assert [memory.of(one) for one in processes] == [10, 20, 30, 40]
    memory.look({"a": processes}, everybody=True)
    assert sorted(looked[6:]) == [1, 2, 3, 4]
