from __future__ import annotations

import os
import signal

import pytest

from faasmoe.children import Children


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
