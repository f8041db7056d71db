"""The node's side of joining: how it gets its certificate, and keeps it.

A node on the server's machine takes its certificate from the authority, which is a folder there. Another one joins by a
token once; from then on it announces itself by its certificate, and has it renewed in time.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from contextlib import closing
from typing import TypeVar

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority import authority as authorities
from faasmoe.platforms.cluster.authority import certificates
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role, bare_context
from faasmoe.platforms.cluster.authority.tokens import JoinToken
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
from faasmoe.platforms.cluster.protocol.messages import ClusterMessage, TurnedAway
from faasmoe.platforms.cluster.protocol.tls import secured
from faasmoe.platforms.local.protocol.wire import Lost

log = logging.getLogger(__name__)

_SECONDS = 5.0  # for a whole exchange
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)

_M = TypeVar("_M", bound=ClusterMessage)


class Enrolment:
    """The membership of one node, at the server that listens at `server`."""

    def __init__(self, name: str, identity: ClusterIdentity, server: NodeAddress, offer: NodeOffer) -> None:
        """`offer`: an unspecified host stands for the address by which the server is reached."""
        self._name = name
        self._identity = identity
        self._server = server
        self._offer = offer

    def join(self, token: JoinToken) -> None:
        """Become a member by a token. Raises `OptionError` if the server refuses it, or is not the token's."""
        try:
            certificate = self._authority_of(token)
            context = bare_context(serving=False)
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=certificate.decode())
            with closing(self._connected(context)) as connection:
                peer_of(connection, Role.SERVER)
                request = certificates.signing_request(self._identity.key())
                asked = Join(token=token.id, secret=token.secret, name=self._name, request=request)
                self._identity.take(_ask(connection, asked, Joined).certificate, certificate)
            self.announce()
        except (Lost, OptionError) as error:
            raise OptionError(f"node {self._name} cannot join at {self._server}: {error}") from error

    def announce(self) -> None:
        """Tell the server that the node is there, and have its certificate renewed if it is time.

        Raises `LinkRefused` if the server refuses it, `Lost` if it cannot be reached, `OptionError`.
        """
        request = b""
        if authorities.is_due(self._identity):
            request = certificates.signing_request(self._identity.key())
        with closing(self._connected(self._identity.context(serving=False))) as connection:
            peer_of(connection, Role.SERVER)
            joined = _ask(connection, Announce(self._offer_over(connection), request), Joined)
            if request:
                self._identity.take(joined.certificate, self._identity.authority())
                log.info("the certificate of node %s was renewed", self._name)

    def _authority_of(self, token: JoinToken) -> bytes:
        """The certificate of the token's authority. Nothing is told to the server, which may be anybody yet."""
        with closing(self._connected(bare_context(serving=False))) as connection:
            certificate = certificates.first(_ask(connection, AskAuthority(), AuthorityReport).certificate)
        if certificates.fingerprint(certificates.public_of(certificate)) != token.pin:
            raise OptionError("it is not the server that has made the token: its authority is another one")
        return certificate

    def _connected(self, context: ssl.SSLContext) -> Connection:
        """Raises `Lost`."""
        deadline = time.monotonic() + _SECONDS
        try:
            sock = socket.create_connection((self._server.host, self._server.port), _SECONDS)
        except OSError as error:
            raise Lost(f"it cannot be reached: {error.strerror or error}") from error
        prepare(sock)
        return Connection(secured(sock, context, deadline), HANDSHAKE_HEAD)

    def _offer_over(self, connection: Connection) -> NodeOffer:
        if self._offer.host not in _ANYWHERE:
            return self._offer
        host = connection.socket.getsockname()[0]
        return NodeOffer(host, self._offer.port, self._offer.memory_budget)


def _ask(connection: Connection, asked: ClusterMessage, wanted: type[_M]) -> _M:
    """Raises `Lost`, `LinkRefused` if the server refuses the node."""
    deadline = time.monotonic() + _SECONDS
    connection.send(asked, deadline)
    answer = connection.received(join_messages.read_answered, deadline)
    if isinstance(answer, TurnedAway):
        raise LinkRefused(answer.cause)
    if not isinstance(answer, wanted):
        raise Lost(f"it has answered {type(answer).__name__} instead of {wanted.__name__}")
    return answer
