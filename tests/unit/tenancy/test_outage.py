from __future__ import annotations

import errno
import logging
import os

import pytest

from faasmoe.errors import DatabaseError
from faasmoe.tenancy.outage import Outage


def test_an_outage_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    outage = Outage("nothing is written", logging.ERROR, lambda: now[0])
    outage.over()
    for _ in range(1000):
        outage.failed(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert (outage.failures, outage.cause) == (1000, "OSError: [Errno 24] Too many open files")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "nothing is written: OSError: [Errno 24] Too many open files")
    ]
    outage.failed(DatabaseError("the disk is full"))
    assert outage.cause == "the disk is full"
    outage.over()
    assert outage.cause is None
    outage.failed(DatabaseError("again"))  # what comes and goes does not fill the log
    assert len(caplog.records) == 1
    outage.over()
    now[0] = 60
    outage.failed(DatabaseError("again"))
    assert len(caplog.records) == 2
