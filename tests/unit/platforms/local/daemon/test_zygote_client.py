"""The daemon's end of a zygote that is no process."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from faasmoe.platforms.local.daemon import zygote_client as module
from faasmoe.platforms.local.daemon.zygote_client import ZygoteClient, ZygoteFailed
from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.protocol.endings import UNUSABLE


class Process:
    """What `start` returns. `end` is its socket."""

    pid = os.getpid()

    def __init__(self, end: socket.socket, status: int) -> None:
        self.end, self.returncode = end, status

    def kill(self) -> None:
        self.end.close()

    def wait(self, _: float) -> int:
        return self.returncode


Life = Callable[[socket.socket], int] | OSError


def plan(monkeypatch: pytest.MonkeyPatch, *lives: Life) -> list[float]:
    """Each start does the next of `lives`, and the last again and again. Returns the list of when they began."""
    begun: list[float] = []

    def start(_: str, __: Sequence[str], *, descriptors: Sequence[int], **___: Any) -> Process:
        life = lives[min(len(begun), len(lives) - 1)]
        begun.append(asyncio.get_running_loop().time())
        if isinstance(life, OSError):
            raise life
        end = socket.socket(fileno=os.dup(descriptors[0]))
        return Process(end, life(end))

    monkeypatch.setattr(module, "start", start)
    return begun


def ready(end: socket.socket) -> int:
    wire.send(end, {"event": "ready"})
    return -signal.SIGKILL


def killed(end: socket.socket) -> int:
    end.shutdown(socket.SHUT_RDWR)
    return -signal.SIGKILL


def unusable(end: socket.socket) -> int:
    end.shutdown(socket.SHUT_RDWR)
    return UNUSABLE


AGAIN = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_it_is_started_until_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it cannot be forked, and when it is killed while it starts: callers wait."""
    begun = plan(monkeypatch, AGAIN, killed, AGAIN, ready)
    events: list[Any] = []

    async def run() -> str:
        client = ZygoteClient((), events.append)
        waiting = [asyncio.ensure_future(client.ready()) for _ in range(3)]
        await asyncio.sleep(0.01)
        trouble = client.trouble
        await asyncio.wait_for(asyncio.gather(*waiting), 30)
        assert client.up
        assert client.trouble == ""
        client.close()
        return trouble

    assert asyncio.run(run()) == (
        f"the process that forks instances cannot be started: {os.strerror(errno.EAGAIN)}"
    )
    assert len(begun) == 4
    assert events == [None]


def test_one_that_nobody_waits_for_any_more_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = plan(monkeypatch, killed)

    async def run() -> None:
        client = ZygoteClient((), lambda _: None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.ready(), 0.2)
        before = len(begun)
        await asyncio.sleep(0.5)
        assert len(begun) <= before + 1
        client.close()

    asyncio.run(run())


def test_what_another_start_would_not_help_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = plan(monkeypatch, unusable)

    async def run() -> None:
        client = ZygoteClient((), lambda _: None)
        with pytest.raises(ZygoteFailed, match="lost: it ended with status 78"):
            await asyncio.wait_for(client.ready(), 30)
        client.close()

    asyncio.run(run())
    assert len(begun) == 1


def test_half_a_message_does_not_hold_up_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[socket.socket] = []
    message = wire.pack({"event": "alive"})

    def live(end: socket.socket) -> int:
        ends.append(end)
        wire.send(end, {"event": "ready"})
        return -signal.SIGKILL

    plan(monkeypatch, live)

    async def run() -> None:
        client = ZygoteClient((), lambda _: None)
        await asyncio.wait_for(client.ready(), 30)
        client.ping()
        ends[0].sendall(message[:11])
        await asyncio.wait_for(asyncio.sleep(0.05), 5)
        assert client.owes
        ends[0].sendall(message[11:])
        await asyncio.sleep(0.05)
        assert not client.owes
        client.close()

    asyncio.run(run())
