"""Bytes between an orchestrator's socket and the connection to another machine, over socket pairs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD
from faasmoe.platforms.cluster.protocol.relay import Relay

_SECONDS = 10


class Ends:
    """A relay in a thread, the other ends of its two sockets, and why it has ended."""

    def __init__(self, stack: ExitStack, check: Callable[[bool], str] = lambda _: "") -> None:
        pairs = [tuple(map(stack.enter_context, socket.socketpair())) for _ in range(2)]
        (self.remote, near), (self.local, other) = pairs
        for end in (self.remote, self.local):
            end.settimeout(_SECONDS)
        self.causes: list[str] = []
        self._relay = Relay(Connection(near, MOST_HEAD), other, check)

        def run() -> None:
            self.causes.append(self._relay.run())
            near.close()
            other.close()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def ended(self) -> str:
        self.thread.join(_SECONDS)
        (cause,) = self.causes
        return cause


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        got = sock.recv(count - len(data))
        assert got, "it has ended"
        data += got
    return bytes(data)


def test_bytes_go_both_ways(stack: ExitStack) -> None:
    ends = Ends(stack)
    ends.remote.sendall(b"there")
    assert exactly(ends.local, 5) == b"there"
    ends.local.sendall(b"and back")
    assert exactly(ends.remote, 8) == b"and back"


def test_more_than_sockets_hold_arrives_in_order(stack: ExitStack) -> None:
    ends = Ends(stack)
    data = bytes(range(256)) * (1 << 14)
    sender = threading.Thread(target=ends.local.sendall, args=(data,), daemon=True)
    sender.start()
    ends.remote.sendall(b"meanwhile")  # a direction that is full does not keep up the other one
    assert exactly(ends.local, 9) == b"meanwhile"
    assert exactly(ends.remote, len(data)) == data
    sender.join(_SECONDS)


@pytest.mark.parametrize("side", ["remote", "local"])
def test_the_end_of_one_side_ends_the_other(stack: ExitStack, side: str) -> None:
    ends = Ends(stack)
    getattr(ends, side).close()
    assert ends.ended() == "closed by the other side"
    assert (ends.local if side == "remote" else ends.remote).recv(1) == b""


def test_it_ends_when_the_check_says_so(stack: ExitStack) -> None:
    looks: list[bool] = []

    def check(heard: bool) -> str:
        looks.append(heard)
        return "was silent" if len(looks) == 2 else ""

    ends = Ends(stack, check)
    ends.local.sendall(b"a sign of life")
    assert ends.ended() == "was silent"
    assert looks == [True, False]
