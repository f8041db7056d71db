"""The server's side of joining: takes connections of nodes, one exchange each."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress, check_name, read_address
from faasmoe.platforms.cluster.authority import certificates
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role
from faasmoe.platforms.cluster.authority.members import Member, MemberBook
from faasmoe.platforms.cluster.authority.tokens import TokenBook
from faasmoe.platforms.cluster.joining import join_messages
from faasmoe.platforms.cluster.joining.join_messages import (
    Announce,
    AskAuthority,
    AuthorityReport,
    Join,
    Joined,
    NodeOffer,
)
from faasmoe.platforms.cluster.protocol.connection import Connection, prepare
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import HANDSHAKE_HEAD, peer_of
from faasmoe.platforms.cluster.protocol.messages import TurnedAway
from faasmoe.platforms.cluster.protocol.tls import Peer, secured
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

_SECONDS = 5.0  # for a whole exchange
_MOST_AT_ONCE = 16  # exchanges; more are closed at once
_TICK = 1.0
_BACKLOG = 64


class JoinListener(Closeable):
    """Takes nodes in on `listener`, from `start` to `close`, by threads of its own."""

    def __init__(
        self,
        listener: socket.socket,
        authority: Authority,
        identity: ClusterIdentity,
        tokens: TokenBook,
        members: MemberBook,
    ) -> None:
        """`identity` is the server's."""
        self._listener = listener
        self._authority = authority
        self._identity = identity
        self._tokens = tokens
        self._members = members
        self._free = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._pool = ThreadPoolExecutor(_MOST_AT_ONCE, "join")
        self._closed = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="joins", daemon=True)

    def start(self) -> None:
        """Take nodes in from now on."""
        self._listener.listen(_BACKLOG)
        self._acceptor.start()

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not self._closed.is_set():
            if not poll.poll(_TICK * 1000) or self._closed.is_set():
                continue
            with suppress(OSError):  # the node is gone already, or no descriptor is left
                sock, address = self._listener.accept()
                if self._free.acquire(blocking=False):
                    self._pool.submit(self._exchange, sock, address[0])
                else:
                    log.warning("too many nodes join at once; one from %s is refused", address[0])
                    sock.close()

    def _exchange(self, sock: socket.socket, address: str) -> None:
        try:
            prepare(sock)
            self.serve(sock, address)
        except OSError as error:
            log.warning("a node from %s has not joined: %s", address, error)
        finally:
            sock.close()
            self._free.release()

    def serve(self, sock: socket.socket, address: str) -> None:
        """One exchange over a connected socket, which this takes over. `address` is for the log."""
        deadline = time.monotonic() + _SECONDS
        try:
            context = self._identity.context(serving=True, strangers=True)
            connection = Connection(secured(sock, context, deadline), HANDSHAKE_HEAD)
        except (Lost, OptionError) as error:
            log.warning("a connection from %s to join was refused: %s", address, error)
            return
        try:
            asked = connection.received(join_messages.read_asked, deadline)
            connection.send(self._answer(connection, asked, address), deadline)
        except Lost as error:
            log.warning("a connection from %s to join has ended: %s", address, error)
            if isinstance(error, LinkRefused):
                with suppress(Lost):
                    connection.send(TurnedAway(str(error)), deadline)
        finally:
            connection.close()

    def _answer(
        self, connection: Connection, asked: AskAuthority | Join | Announce, address: str
    ) -> AuthorityReport | Joined | TurnedAway:
        """Raises `LinkRefused` for who announces itself and is no node."""
        if isinstance(asked, AskAuthority):
            return AuthorityReport(self._authority.certificate)
        if isinstance(asked, Join):
            name, take_in = asked.name, partial(self._join, asked)
        else:
            peer = peer_of(connection, Role.NODE)
            name, take_in = peer.name, partial(self._announced, peer, asked)
        try:
            certificate = take_in()
        except OptionError as error:
            log.warning("node %r from %s cannot join: %s", name, address, error)
            return TurnedAway(str(error))
        log.info("node %s %s", name, "has joined" if isinstance(asked, Join) else f"is at {_address(asked.offer)}")
        return Joined(certificate)

    def _join(self, asked: Join) -> bytes:
        """The certificate of a new member. Raises `OptionError`."""
        check_name(asked.name)
        replace = self._tokens.check(asked.token, asked.secret, asked.name)
        key = certificates.requested(asked.request)
        self._members.join(asked.name, Member(fingerprint=certificates.fingerprint(key)), replace)
        return self._authority.certify(key, Role.NODE, asked.name)

    def _announced(self, peer: Peer, asked: Announce) -> bytes:
        """A new certificate, if the member has asked for one. Raises `OptionError`."""
        key = certificates.public_of(peer.certificate)
        if asked.request and certificates.requested(asked.request) != key:
            raise OptionError("its signing request must be by the key of its certificate")
        address = _address(asked.offer)
        member = Member(
            fingerprint=certificates.fingerprint(key),
            host=address.host,
            port=address.port,
            memory_budget=asked.offer.memory_budget,
        )
        self._members.join(peer.name, member, replace=False)
        return self._authority.certify(key, Role.NODE, peer.name) if asked.request else b""

    def close(self) -> None:
        """Take no more nodes. May be called twice."""
        self._closed.set()
        self._listener.close()
        if self._acceptor.is_alive():
            self._acceptor.join()
        self._pool.shutdown()


def _address(offer: NodeOffer) -> NodeAddress:
    """Raises `OptionError` if it is none."""
    address = read_address(str(NodeAddress(offer.host, offer.port)))
    if not address.port:
        raise OptionError(f"{address}: its port must be that on which it listens")
    return address
