"""Messages between a node that joins, and the server, in frames as those between clients and agents.

AskAuthority   of who knows nothing yet: it compares the answer with its token's pin, and connects again
Join           with a token, over TLS with a server of that authority: the node gets its certificate
Announce       with that certificate: the node is there, at this address, and may want the certificate renewed
"""

from __future__ import annotations

from typing import Any

import msgspec

from faasmoe.platforms.cluster.protocol.messages import ClusterMessage, TurnedAway, read


class AskAuthority(ClusterMessage, frozen=True):
    """Ask for the certificate of the authority. Answered by `AuthorityReport`."""


class AuthorityReport(ClusterMessage, frozen=True):
    """The certificate of the authority."""

    certificate: bytes


class NodeOffer(msgspec.Struct, frozen=True, array_like=True):
    """What a node offers."""

    host: str
    port: int
    memory_budget: int | None  # bytes


class Join(ClusterMessage, frozen=True, kw_only=True):
    """Ask for a certificate. Answered by `Joined` or `TurnedAway`."""

    token: str  # its id
    secret: str
    name: str
    request: bytes  # to certify the node's key


class Announce(ClusterMessage, frozen=True):
    """A node with a certificate can be called. Answered by `Joined` or `TurnedAway`."""

    offer: NodeOffer
    request: bytes = b""  # to certify the node's key anew


class Joined(ClusterMessage, frozen=True):
    """The node belongs to the cluster."""

    certificate: bytes  # empty: none was asked for


_asked: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AskAuthority | Join | Announce)
_answered: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AuthorityReport | Joined | TurnedAway)


def read_asked(head: memoryview) -> AskAuthority | Join | Announce:
    """What a node has sent. Raises `Lost`."""
    asked: AskAuthority | Join | Announce = read(_asked, head)
    return asked


def read_answered(head: memoryview) -> AuthorityReport | Joined | TurnedAway:
    """What the server has sent. Raises `Lost`."""
    answered: AuthorityReport | Joined | TurnedAway = read(_answered, head)
    return answered
