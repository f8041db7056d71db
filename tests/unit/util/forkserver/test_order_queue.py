from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from faasmoe.util.forkserver.order_queue import OrderQueue
from tests.unit.util.forkserver.played import settle

MANY = 3000
PADDING = b"x" * 300


def descriptors() -> int:
    gc.collect()  # what other tests have left is not closed in between
    return len(os.listdir("/proc/self/fd"))


def play(test: Callable[[OrderQueue, socket.socket], Awaitable[None]], most: int = MANY) -> None:
    """`test` gets a queue and the other end of its socket, and must leave no descriptor open."""

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            before = descriptors()
            queue = OrderQueue(ours, most)
            await test(queue, theirs)
            queue.close()
            assert descriptors() <= before

    asyncio.run(run())


def test_packets_for_a_server_that_does_not_read_wait_in_order_with_their_descriptors() -> None:
    async def test(queue: OrderQueue, theirs: socket.socket) -> None:
        for number in range(MANY):  # nobody reads, and nobody waits
            queue.send(b"%d " % number + PADDING, [0, 1] if number % 100 == 0 else ())
        seen, came = [], 0
        while len(seen) < MANY:
            try:
                packet, fds, _, _ = socket.recv_fds(theirs, 4096, 8)
            except BlockingIOError:
                await asyncio.sleep(0)
                continue
            seen.append(int(packet.split()[0]))
            came += len(fds)
            for fd in fds:
                os.close(fd)
        assert seen == list(range(MANY))
        assert came == 2 * MANY // 100

    play(test)


def test_what_is_not_sent_leaves_no_descriptor() -> None:
    async def test(queue: OrderQueue, _: socket.socket) -> None:
        before = descriptors()
        for _ in range(MANY):
            queue.send(PADDING, [0])
        assert descriptors() > before
        queue.close()
        assert descriptors() <= before

    play(test)


def test_packets_that_wait_for_a_server_that_has_gone_are_forgotten() -> None:
    async def test(queue: OrderQueue, theirs: socket.socket) -> None:
        for _ in range(MANY):
            queue.send(PADDING, [0])
        assert queue._waiting
        theirs.close()
        await settle()
        assert not queue._waiting
        with pytest.raises(ConnectionError):
            queue.send(PADDING)

    play(test)


def test_no_more_packets_wait_than_may() -> None:
    async def test(queue: OrderQueue, _: socket.socket) -> None:
        while len(queue._waiting) < 100:
            queue.send(PADDING)
        with pytest.raises(BlockingIOError, match="100 packets wait already"):
            queue.send(PADDING)
        assert len(queue._waiting) == 100

    play(test, most=100)


def test_a_packet_whose_descriptors_cannot_be_kept_is_not_sent() -> None:
    async def test(queue: OrderQueue, _: socket.socket) -> None:
        for _ in range(MANY):
            queue.send(PADDING)
        waiting = len(queue._waiting)
        with pytest.raises(OSError, match="Bad file descriptor"):
            queue.send(PADDING, [0, 1 << 20])
        assert len(queue._waiting) == waiting

    play(test, most=2 * MANY)
