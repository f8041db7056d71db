"""Bytes between an orchestrator's socket and the connection to another machine, over socket pairs."""

from __future__ import annotations

import queue
import socket
import threading
import time
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
        self.relay = Relay(Connection(near, MOST_HEAD), other, check)

        def run() -> None:
            self.causes.append(self.relay.run())
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


def filled(sock: socket.socket) -> int:
    """Send until nobody takes any more for a while. Returns the number of bytes."""
    sent = 0
    sock.settimeout(0.5)
    try:
        while True:
            sent += sock.send(bytes(4096))
    except TimeoutError:
        return sent


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
    assert ends.relay.left_here == (side == "local")
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


def test_an_orchestrator_is_not_judged_while_the_other_machine_takes_nothing(stack: ExitStack) -> None:
    looks: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def check(heard: bool) -> str:
        looks.put(heard)
        return ""

    ends = Ends(stack, check)
    data = bytes(8 << 20)  # more than the sockets hold
    sender = threading.Thread(target=ends.local.sendall, args=(data,), daemon=True)
    sender.start()
    assert all(looks.get(timeout=_SECONDS) for _ in range(4))
    assert exactly(ends.remote, len(data)) == data
    sender.join(_SECONDS)
    assert not all(looks.get(timeout=_SECONDS) for _ in range(2))


def test_it_waits_for_room_although_the_sender_has_ended(stack: ExitStack) -> None:
    """What has come is handed on, and nothing is done meanwhile."""
    ends = Ends(stack)
    sent = filled(ends.remote)
    ends.remote.close()
    clock = time.pthread_getcpuclockid(ends.thread.ident or 0)
    before = time.clock_gettime(clock)
    ends.thread.join(1.0)
    assert ends.thread.is_alive()
    assert time.clock_gettime(clock) - before < 0.5
    assert len(exactly(ends.local, sent)) == sent
    assert ends.ended() == "closed by the other side"
