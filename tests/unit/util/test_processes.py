from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from faasmoe.util.processes import Children, environment, leave_signals_to_parent, start


def test_each_end_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda *_, **__: -1)
    ends = [(7, 0), (8, 3 << 8), (9, signal.SIGKILL), (0, 0), (10, 0)]

    def wait(pid: int, options: int) -> tuple[int, int]:
        assert (pid, options) == (-1, os.WNOHANG)
        if not ends:
            raise ChildProcessError
        return ends.pop(0)

    monkeypatch.setattr(os, "waitpid", wait)
    children = Children()
    assert list(children.ended()) == [(7, 0), (8, 3), (9, -signal.SIGKILL)]
    assert list(children.ended()) == [(10, 0)]
    assert list(children.ended()) == []
    children.leave()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(children.fileno())


@pytest.mark.parametrize(
    "name",
    [
        "FAASMOE_DATABASE",
        "FAASMOE_ADMIN_KEY",
        "PGPASSWORD",
        "PGPASSFILE",
        "DATABASE_URL",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "SMTP_PASSWORD",
        "CLIENT_SECRET",
    ],
)
def test_children_get_no_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hidden")
    assert name not in environment()


@pytest.mark.parametrize(
    "name",
    ["FAASMOE_CACHE", "FAASMOE_KERNELS", "FAASMOE_LOG", "PATH", "OMP_WAIT_POLICY", "HF_HOME", "TMPDIR"],
)
def test_children_get_what_they_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "told")
    assert environment()[name] == "told"


def test_no_signal_reaches_a_child_before_it_can_ignore_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals that are blocked when a process is made stay so in it until it says otherwise."""
    seen: dict[str, Any] = {}

    def popen(command: list[str], **options: Any) -> None:
        seen["blocked"] = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        seen.update(options, command=command)

    monkeypatch.setattr(subprocess, "Popen", popen)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    start("some.module", ["argument"], more={"OMP_NUM_THREADS": "1"})
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= seen["blocked"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert seen["command"][1:] == ["-P", "-m", "some.module", "argument"]
    assert seen["env"]["OMP_NUM_THREADS"] == "1"
    assert seen["stdin"] == subprocess.DEVNULL


def test_children_ignore_what_is_sent_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    leave_signals_to_parent()
    assert handlers == dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), signal.SIG_IGN)
