"""A client that an agent serves, and how it is met: nobody is one before its certificate was seen."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role
from faasmoe.platforms.cluster.protocol import handshake
from faasmoe.platforms.cluster.protocol.connection import Connection, prepare
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    Asked,
    AskNode,
    Hello,
    Lane,
    PrewarmFunctions,
    TurnedAway,
)
from faasmoe.platforms.cluster.protocol.tls import Peer
from faasmoe.platforms.local.protocol.wire import Lost

log = logging.getLogger(__name__)

HELLO_SECONDS = 5.0  # for a whole handshake
_LANES: tuple[Lane, ...] = ("beat", "orders", "calls")  # for orchestrators on nodes
_LOOKS = (AskNode, AskCatalogue)  # all that a client without a pool may ask


@dataclass(frozen=True, slots=True, eq=False)
class Guest:
    """A connection of a server's process, or of an orchestrator on a node."""

    connection: Connection
    peer: Peer
    hello: Hello
    _cut: threading.Event = field(default_factory=threading.Event)

    def cut(self) -> None:
        """End the connection, for any thread: an order that has come already is not carried out any more."""
        self._cut.set()
        self.connection.cut()

    def check_there(self) -> None:
        """Raises `Lost` if it was cut."""
        if self._cut.is_set():
            raise Lost("the node is no longer with its pool")

    def check_rights(self) -> None:
        """Raises `LinkRefused` for what an orchestrator on a node may not do: it is no head, and works for a pool."""
        its = self.peer.role == Role.ORCHESTRATOR
        if its and (self.hello.head or not self.hello.pool or self.hello.lane not in _LANES):
            raise LinkRefused(f"an orchestrator of node {self.peer.name} may call functions, and nothing else")

    def check_order(self, asked: Asked) -> None:
        """Raises `Lost` for an order that this client may not give."""
        if not self.hello.pool and not isinstance(asked, _LOOKS):
            raise Lost(f"{type(asked).__name__} of a client without a pool")
        if self.peer.role == Role.ORCHESTRATOR and not isinstance(asked, (*_LOOKS, PrewarmFunctions)):
            raise Lost(f"{type(asked).__name__} of an orchestrator")


def meet(sock: socket.socket, identity: ClusterIdentity, node: str, address: str) -> Guest | None:
    """Find out whose connection `sock` is, which this takes over. None, and it is closed, if it is not the server's.

    `node` and `address`, that of the client, are for the log.
    """
    deadline = time.monotonic() + HELLO_SECONDS
    try:
        if sock.family != socket.AF_UNIX:
            prepare(sock)
        connection = handshake.secure(sock, identity, deadline, serving=True)
    except (Lost, OptionError, OSError) as error:
        sock.close()
        _refused(node, address, error)
        return None
    try:
        return Guest(connection, *handshake.authenticate(connection, deadline))
    except Lost as error:
        turn_away(connection, node, address, error)
        return None


def turn_away(connection: Connection, node: str, address: str, error: Lost) -> None:
    """Tell a client why the node is not for it, if that is worth telling, and close its connection."""
    _refused(node, address, error)
    if isinstance(error, LinkRefused):
        with suppress(Lost):
            connection.send(TurnedAway(str(error)), time.monotonic() + HELLO_SECONDS)
    connection.close()


def _refused(node: str, address: str, error: Exception) -> None:
    log.warning("node %s: a connection from %s was refused: %s", node, address, error)
