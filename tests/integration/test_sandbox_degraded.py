"""What is left of the sandbox on kernels that lack parts of it."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import sys
from pathlib import Path

import pytest

from faasmoe.platforms.local.instance import sandbox
from faasmoe.platforms.local.instance.sandbox import MACHINES, Sandbox, prepare
from tests.integration.sandboxes import (
    REFUSED,
    all_inside,
    attribute_changes,
    changes,
    run_inside,
    status_of_self,
    untouched,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def lack(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Make system calls fail as on a kernel without them."""
    real = sandbox._call

    def call(number: int, *arguments: int | bytes) -> int:
        if number in calls:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return real(number, *arguments)

    monkeypatch.setattr(sandbox, "_call", call)


def without_landlock(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    lack(monkeypatch, 444, 445, 446)
    made = prepare()
    if not made.filtered:
        pytest.skip("this kernel has no seccomp filters")
    return made


def without_filter(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "here", "6", "1", "vax")))
    made = prepare()
    if not made.landlock_abi:
        pytest.skip("this kernel has no Landlock")
    return made


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_without_landlock_the_filter_guards_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: Path
) -> None:
    box = without_landlock(monkeypatch)
    [warning] = warnings_of(caplog)
    assert "Landlock" in warning
    assert "signal" in warning
    said = all_inside(box, changes(folder) | attribute_changes(folder))
    assert {name for name, result in said.items() if result not in REFUSED} == set(), said
    assert untouched(folder)
    assert run_inside(box, (folder / "file").read_bytes) == b"weights"
    assert run_inside(box, lambda: socket.socket().close()) == "EPERM"


def test_without_a_filter_landlock_guards_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: Path
) -> None:
    box = without_filter(monkeypatch)
    assert not box.filtered
    [warning] = [message for message in warnings_of(caplog) if "seccomp" in message]
    assert "vax" in warning
    assert "sockets" in warning
    said = all_inside(box, changes(folder))
    assert {name for name, result in said.items() if result not in (*REFUSED, "EXDEV")} == set(), said
    assert untouched(folder)
    assert run_inside(box, lambda: os.execv(sys.executable, [sys.executable])) == "EACCES"
    assert run_inside(box, status_of_self)["NoNewPrivs"] == "1"


def test_without_either_the_limits_hold(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    lack(monkeypatch, 444, 445, 446, *(calls["seccomp"] for _, calls in MACHINES.values()))
    box = prepare(64 << 20)
    assert [("Landlock" in message, "seccomp" in message) for message in warnings_of(caplog)] == [
        (True, False),
        (False, True),
    ]
    assert "write files" in caplog.messages[1]
    said = all_inside(
        box,
        {
            "allocation": lambda: len(bytearray(128 << 20)),
            "core": lambda: resource.getrlimit(resource.RLIMIT_CORE),
        },
    )
    assert said == {"allocation": "MemoryError", "core": (0, 0)}


def test_an_older_landlock_leaves_less_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kept: Sandbox, folder: Path
) -> None:
    caplog.clear()
    real = sandbox._call
    version = (444, 0, 0, 1)
    monkeypatch.setattr(sandbox, "_call", lambda *call: 2 if call == version else real(*call))
    box = prepare()
    assert box.landlock_abi == 2
    [warning] = warnings_of(caplog)
    assert "ABI 2" in warning
    said = all_inside(box, changes(folder))
    assert {name for name, result in said.items() if result not in REFUSED} == set(), said
    assert untouched(folder)


def test_a_step_that_fails_stops_no_instance() -> None:
    def fail() -> None:
        raise OSError(errno.EPERM, "no")

    box = Sandbox((fail, lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))))
    assert run_inside(box, lambda: resource.getrlimit(resource.RLIMIT_CORE)) == (0, 0)
