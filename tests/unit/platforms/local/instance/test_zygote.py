from __future__ import annotations

import errno
import os
import signal
import socket

import pytest

from faasmoe.platforms.local.instance.sandbox import Sandbox
from faasmoe.platforms.local.instance.zygote import Zygote
from faasmoe.platforms.local.protocol import wire


def test_a_fork_that_fails_is_told_and_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda *_, **__: -1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        zygote = Zygote(theirs, 1, Sandbox(()), [])
        ours.settimeout(5)
        before = len(os.listdir("/proc/self/fd"))
        wire.send(ours, {"operation": "start", "id": "a"}, [0])
        zygote._obey(*wire.receive(theirs))
        cause = f"no process can be forked: {os.strerror(errno.EAGAIN)}"
        assert wire.receive(ours)[0] == {"event": "failed", "id": "a", "cause": cause}
        zygote._add_spare()
        assert zygote._backoff.left > 0  # before the next
        assert len(os.listdir("/proc/self/fd")) == before
