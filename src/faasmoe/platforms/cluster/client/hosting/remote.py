"""An orchestrator on a node, as the head has it: a socket, and a thread that carries its bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.protocol import hosting_messages
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.hosting_messages import NoOrchestrator
from faasmoe.platforms.cluster.protocol.relay import Relay
from faasmoe.platforms.local.protocol.wire import Lost

_START_SECONDS = 15.0


class NodeOrchestrator:
    """Implements `platforms.orchestrator_nodes.RemoteOrchestrator`."""

    def __init__(self, link: NodeLink, leaves: Callable[[], bool], ended: Callable[[], object]) -> None:
        """Starts it. `ended` is called when it has ended. Raises `Lost`, and calls nothing then."""
        self.node = link.name
        self.ended: Future[str] = Future()
        self._leaves = leaves
        self._link = link
        self._connection = _started(link)
        self._told = ended
        self.socket, self._local = socket.socketpair()
        threading.Thread(target=self._carry, name=f"orchestrator of {self.node}", daemon=True).start()

    @property
    def leaves(self) -> bool:
        """See `RemoteOrchestrator.leaves`."""
        return self._leaves()

    def cut(self) -> None:
        """See `RemoteOrchestrator.cut`."""
        self._connection.cut()

    def _carry(self) -> None:
        cause = ""
        try:
            cause = Relay(self._connection, self._local, lambda _: "").run()
        finally:
            self._local.close()
            self._link.drop(self._connection)
            self._told()
            self.ended.set_result(f"its connection to node {self.node}: {cause}")


def _started(link: NodeLink) -> Connection:
    """A connection to a new orchestrator. Raises `Lost`."""
    connection = link.open("orchestrator")
    try:
        answer = connection.received(hosting_messages.read_started, time.monotonic() + _START_SECONDS)
        if isinstance(answer, NoOrchestrator):
            raise Lost(answer.cause)
    except BaseException:
        link.drop(connection)
        raise
    return connection
