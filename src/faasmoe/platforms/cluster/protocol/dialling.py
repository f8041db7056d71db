"""A client's connection to an agent, from its address to the agent's welcome."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.protocol import handshake
from faasmoe.platforms.cluster.protocol.connection import Connection, prepare
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import Lane, Welcome
from faasmoe.platforms.cluster.protocol.tls import Peer
from faasmoe.platforms.local.protocol.wire import Lost

_CONNECT_SECONDS = 1.0  # for a connection and its handshake

Dial = Callable[[NodeAddress, float], socket.socket]
"""Connects to an address within some seconds. Raises `OSError`."""


def dial(address: NodeAddress, seconds: float) -> socket.socket:
    """Connect to an address over TCP within some seconds. Raises `OSError`."""
    sock = socket.create_connection((address.host, address.port), seconds)
    try:
        prepare(sock)
    except OSError:
        sock.close()
        raise
    return sock


def connect(
    address: NodeAddress, credentials: Credentials, lane: Lane, dial: Dial = dial
) -> tuple[Connection, Peer, Welcome]:
    """A connection to an agent, and what that tells of itself. Raises `Lost`."""
    deadline = time.monotonic() + _CONNECT_SECONDS
    try:
        sock = dial(address, _CONNECT_SECONDS)
    except OSError as error:
        raise Lost(f"it cannot be reached: {error.strerror or error}") from error
    try:
        connection = handshake.secure(sock, credentials.identity, deadline, serving=False)
    except OptionError as error:
        sock.close()
        raise LinkRefused(str(error)) from error
    except BaseException:
        sock.close()
        raise
    try:
        peer, welcome = handshake.greet(connection, credentials, lane, deadline)
    except BaseException:
        connection.close()
        raise
    return connection, peer, welcome
