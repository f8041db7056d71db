from __future__ import annotations

import pytest

from faasmoe.evaluation.meters.processes import Seen
from faasmoe.evaluation.meters.tally import CpuTally


def seen(pid: int, parent: int, cpu: float, reaped: float = 0.0, started: int | None = None) -> Seen:
    return Seen(pid=pid, parent=parent, started=pid if started is None else started, cpu=cpu, reaped=reaped)


def test_only_what_comes_after_the_beginning_counts() -> None:
    tally = CpuTally()
    tally.add({"orchestrator": [seen(1, 0, 50.0, 7.0)]})
    assert tally.seconds == {"orchestrator": 0}
    tally.add({"orchestrator": [seen(1, 0, 53.0, 7.0)], "instances": [seen(2, 1, 0.5)]})
    assert tally.seconds == {"orchestrator": 3, "instances": 0.5}


def test_what_an_instance_took_between_the_last_look_and_its_end_counts_as_its() -> None:
    tally = CpuTally()
    tally.add({"zygote": [seen(1, 0, 1.0)]})
    tally.add({"zygote": [seen(1, 0, 1.0)], "instances": [seen(2, 1, 2.0)]})
    tally.add({"zygote": [seen(1, 0, 1.5, reaped=2.4)]})  # 0.4 s after the look
    assert tally.seconds == pytest.approx({"zygote": 0.5, "instances": 2.4})


def test_an_instance_that_nobody_saw_counts() -> None:
    tally = CpuTally()
    tally.add({"zygote": [seen(1, 0, 1.0)]})
    tally.add({"zygote": [seen(1, 0, 1.0, reaped=0.3)]})
    assert tally.seconds["instances"] == pytest.approx(0.3)


def test_nothing_counts_twice_however_looks_and_ends_interleave() -> None:
    tally = CpuTally()
    tally.add({"zygote": [seen(1, 0, 0.0)]})
    tally.add({"zygote": [seen(1, 0, 0.0)], "instances": [seen(2, 1, 2.0)]})
    tally.add({"zygote": [seen(1, 0, 0.0, reaped=0.0)]})  # it has ended, its parent was read before that
    assert tally.seconds["instances"] == pytest.approx(2.0)
    tally.add({"zygote": [seen(1, 0, 0.0, reaped=2.1)]})
    assert tally.seconds["instances"] == pytest.approx(2.1)


def test_grandchildren_are_passed_on_with_their_roles() -> None:
    tally = CpuTally()
    tally.add({"gateway": [seen(1, 0, 0.0)]})
    tally.add({"gateway": [seen(1, 0, 0.0)], "daemon": [seen(2, 1, 1.0)], "zygote": [seen(3, 2, 2.0)],
               "instances": [seen(4, 3, 4.0)]})  # fmt: skip
    tally.add({"gateway": [seen(1, 0, 0.0)], "daemon": [seen(2, 1, 1.0)], "zygote": [seen(3, 2, 2.0, reaped=4.0)]})
    tally.add({"gateway": [seen(1, 0, 0.0)], "daemon": [seen(2, 1, 1.0, reaped=6.0)]})
    tally.add({"gateway": [seen(1, 0, 0.0, reaped=7.0)]})
    assert tally.seconds == pytest.approx({"gateway": 0, "daemon": 1, "zygote": 2, "instances": 4})


def test_who_dies_with_its_parent_is_not_forgotten() -> None:
    tally = CpuTally()
    tally.add({"gateway": [seen(1, 0, 0.0)]})
    tally.add({"gateway": [seen(1, 0, 0.0)], "zygote": [seen(2, 1, 1.0)], "instances": [seen(3, 2, 5.0)]})
    tally.add({"gateway": [seen(1, 0, 0.0, reaped=1.0)]})  # the kernel killed 3, and nobody waited for it
    assert tally.seconds == pytest.approx({"gateway": 0, "zygote": 1, "instances": 5})


def test_another_process_with_an_old_id_is_another_process() -> None:
    tally = CpuTally()
    tally.add({"gateway": [seen(1, 0, 0.0)]})
    tally.add({"gateway": [seen(1, 0, 0.0)], "instances": [seen(2, 1, 3.0, started=10)]})
    tally.add({"gateway": [seen(1, 0, 0.0, reaped=3.0)], "instances": [seen(2, 1, 1.0, started=20)]})
    assert tally.seconds == pytest.approx({"gateway": 0, "instances": 4})
