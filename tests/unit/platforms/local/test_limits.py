from __future__ import annotations

import logging
import resource

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.base import Demand
from faasmoe.platforms.local import limits
from faasmoe.platforms.local.limits import Needs, check, shortcomings
from faasmoe.util.machine import ControlGroups

DEMAND = Demand(functions=1440, calls_at_once=2, client_tensors=500, function_tensors=30, clients=4, requests=1088)
NEEDS = Needs.of(DEMAND, 8)


def small(**more: int) -> Needs:
    given = {"functions": 4, "calls_at_once": 1, "client_tensors": 5, "function_tensors": 1, **more}
    return Needs.of(Demand(**given), 8)


def test_what_all_functions_need_follows_from_their_number() -> None:
    assert NEEDS.files == 64 + 500 + 2 * 1440
    assert NEEDS.least_files == 32 + 501
    assert NEEDS.tasks == 64 + 1440 * 9
    assert small(functions=1440).files == 64 + 2 * 1440
    assert small(function_tensors=384).files == 64 + 384
    assert small(function_tensors=384).least_files == 32 + 384
    assert small(requests=1088).files == 64 + 1088


def test_a_client_has_no_more_connections_to_a_function_than_calls_compute_side_by_side() -> None:
    one = Needs.of(DEMAND, 1)
    assert (one.files, one.tasks) == (64 + 2 * 1440, 64 + 1440 * 5)


def test_nothing_is_said_where_limits_are_high_enough() -> None:
    assert shortcomings(NEEDS, NEEDS.files, None) == []
    assert shortcomings(NEEDS, NEEDS.files, NEEDS.tasks) == []
    assert shortcomings(NEEDS, resource.RLIM_INFINITY, None) == []


def test_too_few_descriptors_are_told_with_the_number_that_is_needed() -> None:
    (line,) = shortcomings(NEEDS, 1024, None)
    assert line.startswith(
        "ulimit -Hn is 1024, but 3444 open files are needed when all 1440 functions run and 1088 "
    )
    assert "LimitNOFILE=3444" in line
    assert "\n" not in line


def test_too_few_tasks_are_told_with_the_number_that_is_needed() -> None:
    (line,) = shortcomings(NEEDS, NEEDS.files, 500)
    assert "room for 500 more processes and threads (pids.max), but 13024 are needed" in line
    assert "TasksMax=13024" in line


def test_descriptors_that_no_model_can_do_with_are_refused() -> None:
    with pytest.raises(OptionError, match=r"ulimit -Hn is 532: this model needs 533 open files.*LimitNOFILE=3444"):
        shortcomings(NEEDS, 532, None)


def test_limits_of_this_process_are_told_to_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(ControlGroups, "tasks_left", lambda _: 100)
    monkeypatch.setattr(limits, "cores", lambda: 8)
    with caplog.at_level(logging.WARNING):
        check(DEMAND)
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "ulimit -Hn is 1024",
        "the control group has room for 100 more processes and threads (pids.max)",
    ]
