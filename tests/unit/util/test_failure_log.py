from __future__ import annotations

import errno
import logging
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import DatabaseError
from faasmoe.util.failure_log import FailureLog, reason_of
from tests.unit.clocks import Clock

log = logging.getLogger("faasmoe.test")

NO_FILES = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/srv/secret")
NO_MEMORY = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def test_a_cause_is_counted_each_time_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    failures = FailureLog(log, clock=clock)
    for _ in range(500):
        failures.failed("accepting", NO_FILES)
        clock.now += 0.1
    failures.failed("accepting", NO_MEMORY)
    clock.now += 20
    failures.failed("accepting", NO_FILES)
    assert [record.getMessage() for record in caplog.records] == [
        "accepting: Too many open files",
        "accepting: Cannot allocate memory",
        "accepting: Too many open files (500 times)",
    ]
    assert failures.count == 502


def test_the_cause_is_known_until_the_work_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    failures = FailureLog(log, logging.ERROR, clock)
    assert failures.cause is None
    failures.succeeded()
    for _ in range(1000):
        failures.failed("nothing is written", NO_FILES)
    assert (failures.count, failures.cause) == (1000, "Too many open files")
    failures.failed("nothing is written", DatabaseError("the disk is full"))
    assert failures.cause == "the disk is full"
    for _ in range(10):  # what comes and goes does not fill the log
        failures.succeeded()
        assert failures.cause is None
        failures.failed("nothing is written", NO_FILES)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "nothing is written: Too many open files"),
        ("ERROR", "nothing is written: the disk is full"),
    ]
    clock.now += 60
    failures.failed("nothing is written", NO_FILES)
    assert caplog.records[-1].getMessage() == "nothing is written: Too many open files (1010 times)"


def test_causes_that_are_never_the_same_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(log, clock=Clock())
    for number in range(1000):
        failures.failed("work", str(number))
    assert failures.count == 1000
    assert len(caplog.records) == 101
    assert caplog.records[-1].getMessage() == "work"


@pytest.mark.parametrize(
    ("error", "reason", "defect"),
    [
        ("it was stopped", "it was stopped", False),
        (NO_FILES, "Too many open files", False),
        (TimeoutError(), "TimeoutError", False),
        (DatabaseError("gone,\n  and with it all"), "gone, and with it all", False),
        (KeyError("a"), "KeyError: 'a'", True),
    ],
)
def test_a_defect_is_logged_with_its_place(
    caplog: pytest.LogCaptureFixture, error: Exception | str, reason: str, defect: bool
) -> None:
    FailureLog(log).failed("work", error)
    assert reason_of(error) == reason
    assert [record.getMessage() for record in caplog.records] == [f"work: {reason}"]
    assert bool(caplog.records[0].exc_info) is defect


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 70))))
def test_of_a_cause_no_two_lines_come_within_a_minute(failed: list[tuple[str, float]]) -> None:
    clock, lines = Clock(), list[tuple[float, str]]()

    class Log(logging.Logger):
        def log(self, level: int, message: object, *args: object, **_: object) -> None:
            lines.append((clock.now, str(args[0])))

    failures = FailureLog(Log("test"), clock=clock)
    for cause, pause in failed:
        clock.now += pause
        failures.failed("work", cause)
    for cause in "abc":
        times = [at for at, line in lines if line == f"work: {cause}"]
        assert all(later - earlier >= 60 for earlier, later in pairwise(times))
        assert bool(times) is any(each == cause for each, _ in failed)
    assert failures.count == len(failed)
