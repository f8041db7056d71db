"""How client and agent show each other that they have the cluster's secret, which itself never travels.

Each sends a nonce, and answers that of the other with an HMAC (RFC 2104, SHA-256) over both nonces and all that was
said before, so no proof is good for another connection, lane, pool or node.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.protocol import messages
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD, LinkRefused
from faasmoe.platforms.cluster.protocol.messages import Challenge, Hello, Lane, Proof, Welcome
from faasmoe.platforms.local.protocol.wire import Lost

HANDSHAKE_HEAD = 4 << 10  # bytes of a message of a client that has not shown yet that it has the secret
_NONCE = 32  # bytes
_LEAST_SECRET, _MOST_SECRET = 16, 4096  # bytes
_WRONG = "it has another secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a client shows to agents."""

    secret: bytes
    pool: str = ""  # for which it works; empty: it only looks
    head: bool = False  # whether it owns the pool


def read_secret(file: Path) -> bytes:
    """The cluster's secret. Raises `OptionError` if the file cannot be read, or others than its owner may read it."""
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            secret = stream.read(_MOST_SECRET + 1).strip()
    except OSError as error:
        raise OptionError(f"secret_file {file}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise OptionError(f"secret_file {file}: others may read or write it; mend it by: chmod 600 {file}")
    if not _LEAST_SECRET <= len(secret) <= _MOST_SECRET:
        raise OptionError(
            f"secret_file {file}: {len(secret)} bytes; must be {_LEAST_SECRET} to {_MOST_SECRET}, such as those of: "
            "openssl rand -hex 32"
        )
    return secret


def greet(
    connection: Connection, credentials: Credentials, lane: Lane, deadline: float
) -> tuple[Challenge, Welcome]:
    """The client's side. Returns what the agent tells of itself. Raises `Lost`, or `LinkRefused` if it is no use."""
    hello = Hello(
        lane=lane, pool=credentials.pool, head=credentials.head, nonce=os.urandom(_NONCE)
    )  # fmt: skip
    connection.send(hello, deadline)
    challenge = connection.expect(Challenge, deadline)
    if not hmac.compare_digest(
        challenge.proof, _proof(credentials.secret, "agent", hello, challenge.node, challenge.nonce)
    ):
        raise LinkRefused(_WRONG)
    proof = _proof(credentials.secret, "client", hello, challenge.node, challenge.nonce)
    connection.send(Proof(proof), deadline)
    return challenge, connection.expect(Welcome, deadline)


def authenticate(connection: Connection, secret: bytes, node: str, deadline: float) -> Hello:
    """The agent's side, up to the `Welcome`. Raises `Lost`, or `LinkRefused` for a client without the secret."""
    hello = connection.asked(deadline)
    if not isinstance(hello, Hello) or len(hello.nonce) != _NONCE:
        raise Lost("it does not begin with a hello")
    nonce = os.urandom(_NONCE)
    challenge = Challenge(node=node, nonce=nonce, proof=_proof(secret, "agent", hello, node, nonce))
    connection.send(challenge, deadline)
    proof = connection.asked(deadline)
    if not isinstance(proof, Proof):
        raise Lost("it does not answer the challenge")
    if not hmac.compare_digest(proof.proof, _proof(secret, "client", hello, node, nonce)):
        raise LinkRefused(_WRONG)
    connection.reader.most_head = MOST_HEAD
    return hello


def _proof(secret: bytes, side: Literal["agent", "client"], hello: Hello, node: str, nonce: bytes) -> bytes:
    return hmac.digest(secret, messages.encode((side, hello, node, nonce)), "sha256")
