from __future__ import annotations

import errno
import logging

import pytest

from faasmoe.util.complaints import Complaints
from tests.unit.clocks import Clock


def test_a_cause_is_counted_each_time_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    complaints = Complaints(logging.getLogger("faasmoe.test"), clock)
    for _ in range(500):
        complaints.note("accepting", OSError(errno.EMFILE, "Too many open files", "/srv/secret"))
        clock.now += 0.1
    complaints.note("accepting", OSError(errno.ENOMEM, "Cannot allocate memory"))
    clock.now += 20
    complaints.note("accepting", OSError(errno.EMFILE, "Too many open files"))
    assert [record.getMessage() for record in caplog.records] == [
        "accepting: Too many open files",
        "accepting: Cannot allocate memory",
        "accepting: Too many open files (500 times)",
    ]
    assert complaints.counts == {"accepting: Too many open files": 501, "accepting: Cannot allocate memory": 1}


def test_causes_that_are_never_the_same_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(logging.getLogger("faasmoe.test"), Clock())
    for number in range(1000):
        complaints.note("work", str(number))
    assert len(complaints.counts) == 101
    assert len(caplog.records) == 101
