"""Certificates that are no longer good though they have not expired, as agents know them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import private_files
from faasmoe.platforms.cluster.authority.authority import LIFETIME
from faasmoe.platforms.cluster.authority.identity import utc_now

_FILE = "revoked.json"


class Revocation(msgspec.Struct, frozen=True, array_like=True):
    """All certificates of a node and of its orchestrators that were made until an instant."""

    node: str
    until: float  # seconds since 1970, by the clock of the server's machine, which has made the certificates too


class RevocationBook:
    """Those that a node has been told of, kept in its own `folder` for its next start. For all threads."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = utc_now) -> None:
        """Raises `OptionError` if the file cannot be read."""
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._until = private_files.read_table(folder / _FILE, float)

    def learn(self, revocations: Iterable[Revocation]) -> bool:
        """Keep them until such certificates have expired anyhow. Returns whether one of them is new.

        Raises `OptionError` if they cannot be written; they hold all the same, until this process ends.
        """
        expired = (self._clock() - LIFETIME).timestamp()
        with self._lock:
            new = [each for each in revocations if each.until > max(expired, self._until.get(each.node, 0.0))]
            if new:
                known = {node: until for node, until in self._until.items() if until > expired}
                self._until = known | {each.node: each.until for each in new}
                with private_files.locked(self._folder):
                    private_files.write(self._folder / _FILE, msgspec.json.encode(self._until))
        return bool(new)

    def check(self, node: str, certificate: bytes) -> None:
        """Raises `OptionError` if a certificate of this node, PEM or DER, was revoked."""
        until = self._until.get(node)
        if until is None:
            return
        from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415 (needs the extra)

        if certificates.made(certificate).timestamp() <= until:
            when = datetime.fromtimestamp(until, UTC)
            raise OptionError(f"certificates of node {node} were revoked on {when:%Y-%m-%d %H:%M:%S} UTC")
