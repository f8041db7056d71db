"""An orchestrator on a node, as the head has it: a socket, and a thread that carries its bytes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack

from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.protocol import hosting_messages
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.hosting_messages import NoOrchestrator
from faasmoe.platforms.cluster.protocol.relay import Relay
from faasmoe.platforms.local.protocol.wire import Lost

log = logging.getLogger(__name__)

_START_SECONDS = 15.0
_SOON = 15.0  # seconds: an orchestrator that ends by itself before these has failed


class NodeOrchestrator:
    """Implements `platforms.orchestrator_nodes.RemoteOrchestrator`."""

    def __init__(
        self,
        link: NodeLink,
        leaves: Callable[[], bool],
        ended: Callable[[bool], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts it. `ended` is called once, when it has ended, with whether it has failed.

        Raises `Lost` if it does not start, `OSError` or `RuntimeError` if this machine lacks what it takes. Then
        nothing of it is left, and nothing is called.
        """
        self.node = link.name
        self.ended: Future[str] = Future()
        self._leaves = leaves
        self._link = link
        self._told = ended
        self._clock = clock
        self._works_since: float | None = None  # instant since which it takes requests
        self._failed = False
        with ExitStack() as undo:
            self._connection = _started(link)
            undo.callback(link.drop, self._connection)
            self.socket, self._local = map(undo.enter_context, socket.socketpair())
            self._relay = Relay(self._connection, self._local, lambda _: "")
            threading.Thread(target=self._carry, name=f"orchestrator of {self.node}", daemon=True).start()
            undo.pop_all()

    @property
    def leaves(self) -> bool:
        """See `RemoteOrchestrator.leaves`."""
        return self._leaves()

    def confirm(self) -> None:
        """See `RemoteOrchestrator.confirm`."""
        self._works_since = self._clock()

    def fail(self) -> None:
        """See `RemoteOrchestrator.fail`."""
        self._failed = True
        self.cut()

    def cut(self) -> None:
        """See `RemoteOrchestrator.cut`."""
        self._connection.cut()

    def _carry(self) -> None:
        cause = "it has failed on this machine; the server's log tells more"
        try:
            cause = self._relay.run()
        except Exception:  # a defect; without this thread the orchestrator is lost
            log.exception("node %s: the bytes of an orchestrator cannot be carried", self.node)
        self._local.close()
        self._link.drop(self._connection)
        try:
            self._told(self._has_failed())
        finally:
            self.ended.set_result(f"its connection to node {self.node}: {cause}")

    def _has_failed(self) -> bool:
        """Not if it was ended from here, unless by `fail`."""
        if self._failed or self._relay.left_here:
            return self._failed
        return self._works_since is None or self._clock() < self._works_since + _SOON


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
