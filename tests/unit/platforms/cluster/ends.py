"""Nodes without processes: the agent's side of a connection in a thread, at the other end of a pair of sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from faasmoe.platforms.base import Call, Replies
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.agent.batches import Batches
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD
from faasmoe.platforms.cluster.protocol.messages import Failure
from faasmoe.platforms.local.protocol.wire import Lost


class Echoes:
    """A platform whose functions answer with their node, their payload and the rows that they read."""

    def __init__(self, node: str = "") -> None:
        self.node = node
        self.batches: list[list[str]] = []
        self.error: Exception | None = None
        self.failure: Failure | None = None  # why it lacks weights

    def lacks(self, names: Iterable[str]) -> Failure | None:
        lacking = tuple(name for name in names if self.failure and name in self.failure.lacking)
        return replace(self.failure, function=lacking[0], lacking=lacking) if lacking and self.failure else None

    def invoke_many(self, calls: Sequence[Call], deadline: float, shared: Buffer | None = None) -> Replies:
        self.batches.append([call.function for call in calls])
        if self.error:
            raise self.error
        replies = Replies(len(calls))
        for i, call in enumerate(calls):
            payload = b"".join(call.payload)
            if shared is not None:  # the payload names a row of 4 bytes
                row = int(payload)
                payload = bytes(memoryview(shared)[4 * row : 4 * row + 4])
            replies.data[i] = memoryview(self.node.encode() + payload)
            replies.busy[i], replies.memory[i] = 0.5, 7
        return replies


def serve(platform: Echoes, draining: Callable[[], bool] = lambda: False) -> tuple[Connection, Batches]:
    """A client's connection to a node, and the node's end of it, which is served by a thread."""
    ours, theirs = socket.socketpair()
    batches = Batches(Connection(theirs, MOST_HEAD), platform, draining, platform.lacks)

    def run() -> None:
        with theirs:
            try:
                batches.serve()
            except Lost as error:
                batches.lost = str(error)

    batches.lost = ""
    batches.thread = threading.Thread(target=run)
    batches.thread.start()
    return Connection(ours, MOST_HEAD), batches
