from __future__ import annotations

import logging
import resource

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.local.limits import Demand, shortcomings, tell
from faasmoe.util.machine import ControlGroups

DEMAND = Demand(functions=1440, connections=2, tensors=500, its_tensors=30, clients=4, requests=1088)


def test_what_all_functions_need_follows_from_their_number() -> None:
    assert DEMAND.files == 64 + 500 + 2 * 1440
    assert DEMAND.least_files == 32 + 501
    assert DEMAND.tasks == 64 + 1440 * 9
    assert Demand(1440, 1, 5, 1).files == 64 + 2 * 1440
    assert Demand(4, 1, 5, 384).files == 64 + 384
    assert Demand(4, 1, 5, 384).least_files == 32 + 384
    assert Demand(4, 1, 5, 1, requests=1088).files == 64 + 1088


def test_nothing_is_said_where_limits_are_high_enough() -> None:
    assert shortcomings(DEMAND, DEMAND.files, None) == []
    assert shortcomings(DEMAND, DEMAND.files, DEMAND.tasks) == []
    assert shortcomings(DEMAND, resource.RLIM_INFINITY, None) == []


def test_too_few_descriptors_are_told_with_the_number_that_is_needed() -> None:
    (line,) = shortcomings(DEMAND, 1024, None)
    assert line.startswith(
        "ulimit -Hn is 1024, but 3444 open files are needed when all 1440 functions run and 1088 "
    )
    assert "LimitNOFILE=3444" in line
    assert "\n" not in line


def test_too_few_tasks_are_told_with_the_number_that_is_needed() -> None:
    (line,) = shortcomings(DEMAND, DEMAND.files, 500)
    assert "room for 500 more processes and threads (pids.max), but 13024 are needed" in line
    assert "TasksMax=13024" in line


def test_descriptors_that_no_model_can_do_with_are_refused() -> None:
    with pytest.raises(OptionError, match=r"ulimit -Hn is 532: this model needs 533 open files.*LimitNOFILE=3444"):
        shortcomings(DEMAND, 532, None)


def test_limits_of_this_process_are_told_to_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(ControlGroups, "tasks_left", lambda _: 100)
    with caplog.at_level(logging.WARNING):
        tell(DEMAND)
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "ulimit -Hn is 1024",
        "the control group has room for 100 more processes and threads (pids.max)",
    ]
