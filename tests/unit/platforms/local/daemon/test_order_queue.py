from __future__ import annotations

import asyncio
import gc
import os
import socket

from faasmoe.platforms.local.daemon.order_queue import OrderQueue
from faasmoe.platforms.local.protocol import wire

MANY = 3000


async def _fill() -> tuple[list[int], int, int]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        queue = OrderQueue(ours)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(MANY):  # nobody reads, and nobody waits
            queue.send({"number": number, "padding": "x" * 300}, [0] if number % 100 == 0 else ())
        seen, descriptors = [], 0
        loop = asyncio.get_running_loop()
        while len(seen) < MANY:
            message, fds = await loop.run_in_executor(None, wire.receive, theirs)
            seen.append(message["number"])
            descriptors += len(fds)
            for fd in fds:
                os.close(fd)
        return seen, descriptors, len(os.listdir("/proc/self/fd")) - before


def test_orders_for_a_zygote_that_does_not_read_wait_in_order_with_their_descriptors() -> None:
    seen, descriptors, left = asyncio.run(asyncio.wait_for(_fill(), 60))
    assert seen == list(range(MANY))
    assert descriptors == MANY // 100
    assert left <= 0 + 3  # the executor's


async def _close() -> int:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        queue = OrderQueue(ours)
        gc.collect()  # what other tests have left is not closed in between
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(MANY):
            queue.send({"padding": "x" * 300}, [0])
        queue.close()
        return len(os.listdir("/proc/self/fd")) - before


def test_what_is_not_sent_leaves_no_descriptor() -> None:
    assert asyncio.run(_close()) == 0
