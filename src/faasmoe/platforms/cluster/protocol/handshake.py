"""How client and agent meet: TLS with certificates of the cluster's authority on both sides, then a hello."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import private_files
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role
from faasmoe.platforms.cluster.authority.members import MemberBook
from faasmoe.platforms.cluster.authority.revocations import Revocation
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD, LinkRefused
from faasmoe.platforms.cluster.protocol.messages import Hello, Lane, Welcome
from faasmoe.platforms.cluster.protocol.tls import Peer, TlsSocket, secured
from faasmoe.platforms.local.protocol.wire import Lost

HANDSHAKE_HEAD = 4 << 10  # bytes of a message of a client that was not admitted yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a client shows to agents."""

    identity: ClusterIdentity  # of the server, or of a node's orchestrators
    pool: str = ""  # for which it works; empty: it only looks
    head: bool = False  # whether it owns the pool
    server: Path | None = None  # file with the certificate of the server, if that is not the identity's
    members: MemberBook | None = None  # whose certificates count; None: those of all nodes do

    def certificate(self) -> bytes:
        """The server's certificate, PEM or DER. Raises `OptionError` if there is none."""
        return private_files.read(self.server) if self.server else self.identity.certificate()

    def check(self, peer: Peer) -> None:
        """Raises `LinkRefused` for a node whose certificate was revoked, or that has another key now."""
        if self.members:
            try:
                self.members.check(peer.name, peer.certificate)
            except OptionError as error:
                raise LinkRefused(str(error)) from error

    def revocations(self) -> tuple[Revocation, ...]:
        """What agents have to know of certificates that were revoked. Raises `OptionError`."""
        return self.members.revocations() if self.members else ()


def secure(sock: socket.socket, identity: ClusterIdentity, deadline: float, *, serving: bool) -> Connection:
    """Shake hands with `identity` over a connected socket, which this takes over. `serving`: as the agent.

    Raises `LinkRefused` if one side refuses the other's certificate, `Lost`.
    """
    most = HANDSHAKE_HEAD if serving else MOST_HEAD
    return Connection(secured(sock, identity.context(serving=serving), deadline), most)


def greet(connection: Connection, credentials: Credentials, lane: Lane, deadline: float) -> tuple[Peer, Welcome]:
    """The client's side. Returns what the agent tells of itself. Raises `Lost`, or `LinkRefused` if it is no use."""
    peer = peer_of(connection, Role.NODE)
    credentials.check(peer)
    connection.send(Hello(lane=lane, pool=credentials.pool, head=credentials.head), deadline)
    return peer, connection.expect(Welcome, deadline)


def authenticate(connection: Connection, deadline: float) -> tuple[Peer, Hello]:
    """The agent's side, up to the `Welcome`. Raises `Lost`, or `LinkRefused` for a client that is no server's."""
    hello = connection.asked(deadline)
    peer = peer_of(connection, Role.SERVER, Role.ORCHESTRATOR)
    if not isinstance(hello, Hello):
        raise Lost("it does not begin with a hello")
    connection.reader.most_head = MOST_HEAD
    return peer, hello


def peer_of(connection: Connection, *roles: Role) -> Peer:
    """Who is at the other end. Raises `LinkRefused` if it has none of these roles."""
    peer = connection.socket.peer if isinstance(connection.socket, TlsSocket) else None
    if peer is None or peer.role not in roles:
        shown = "none" if peer is None else f"that of {peer.role} {peer.name}"
        raise LinkRefused(f"it needs the certificate of a {roles[0]}, and has shown {shown}")
    return peer
