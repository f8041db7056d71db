"""Tokens by which nodes join: good for some hours, shown once, kept as hashes.

    faasmoe-join-1.ID.SECRET.PIN

The pin is the fingerprint of the authority's public key: the node knows by it whom it talks to before it sends
anything. The secret has 256 random bits, so its hash needs no salt and no slowness.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import private_files
from faasmoe.platforms.cluster.authority.identity import utc_now

_FILE = "tokens.json"
_BEGIN = "faasmoe-join-1"
_FORM = re.compile(r"faasmoe-join-1\.([0-9a-f]{8})\.([\w-]{43})\.([\w-]{43})", re.ASCII)
_KEPT = timedelta(days=7)  # that an expired token is listed


class JoinToken(NamedTuple):
    """A token, as a node has it."""

    id: str
    secret: str
    pin: str  # of the authority

    def __repr__(self) -> str:
        return f"JoinToken({self.id})"  # no secret gets into a log


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a token."""

    hash: str  # SHA-256 of the secret
    node: str  # that alone may join by it; empty: any
    created: datetime
    expires: datetime
    revoked: bool = False

    def state(self, now: datetime) -> str:
        """Whether it is good now."""
        return "revoked" if self.revoked else "expired" if now >= self.expires else "good"


def read_token(file: Path) -> JoinToken:
    """The token in a file. Raises `OptionError`, which does not repeat it."""
    content = private_files.read(file).strip()
    found = _FORM.fullmatch(content.decode("ascii", errors="replace"))
    if found is None:
        raise OptionError(f"--token-file {file}: holds no token, as faasmoe nodes token create prints it")
    return JoinToken(*found.groups())


class TokenBook:
    """The tokens of the authority in `folder`. For all threads, and for processes side by side."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self._folder = folder
        self._clock = clock

    def create(self, lifetime: timedelta, pin: str, node: str = "") -> str:
        """A new token, for one node or any: this is the only time that it can be seen."""
        identity, secret, now = secrets.token_hex(4), secrets.token_urlsafe(32), self._clock()
        with private_files.locked(self._folder):
            records = {id: each for id, each in self.records().items() if each.expires > now - _KEPT}
            records[identity] = TokenRecord(hash=_hash(secret), node=node, created=now, expires=now + lifetime)
            self._write(records)
        return ".".join((_BEGIN, identity, secret, pin))

    def records(self) -> dict[str, TokenRecord]:
        """All tokens that are known, by id. Raises `OptionError`."""
        return private_files.read_table(self._folder / _FILE, TokenRecord)

    def revoke(self, id: str) -> None:
        """Have nobody join by a token any more. Raises `OptionError` if there is none of that id."""
        with private_files.locked(self._folder):
            records = self.records()
            if id not in records:
                raise OptionError(f"token {id}: there is none; faasmoe nodes token list has them")
            records[id] = msgspec.structs.replace(records[id], revoked=True)
            self._write(records)

    def check(self, id: str, secret: str, node: str) -> bool:
        """Whether the token is for this node alone. Raises `OptionError` if the node may not join by it."""
        record = self.records().get(id)
        if record is None or not hmac.compare_digest(record.hash, _hash(secret)):
            raise OptionError("its token is unknown")
        if (state := record.state(self._clock())) != "good":
            raise OptionError(f"its token {id} {'was revoked' if record.revoked else f'has {state}'}")
        if record.node not in ("", node):
            raise OptionError(f"its token {id} is for node {record.node}")
        return bool(record.node)

    def _write(self, records: dict[str, TokenRecord]) -> None:
        private_files.write(self._folder / _FILE, msgspec.json.encode(records))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
