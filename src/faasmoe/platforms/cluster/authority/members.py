"""The nodes that have joined a cluster. They are kept, so a server that starts again knows them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import private_files
from faasmoe.platforms.cluster.authority.identity import utc_now
from faasmoe.platforms.cluster.authority.revocations import Revocation

_FILE = "members.json"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has joined."""

    fingerprint: str  # of its public key
    host: str = ""  # empty: it has a certificate, and has not been there yet
    port: int = 0
    memory_budget: int | None = None  # bytes
    removed: bool = False  # its key is no longer good to join or to renew a certificate
    revoked: bool = False  # nor is its certificate
    revoked_at: float = 0.0  # seconds since 1970: nor are those of its name that were made until then


class MemberBook:
    """The members of the authority in `folder`. For all threads, and for processes side by side."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self._folder = folder
        self._clock = clock
        self._read: tuple[tuple[int, int], dict[str, Member]] | None = None

    def members(self) -> dict[str, Member]:
        """Those that have been there, in the order in which they joined, by name. Raises `OptionError`.

        Reads the file only if it has changed.
        """
        return {name: member for name, member in self._records().items() if member.host and not member.removed}

    def _records(self) -> dict[str, Member]:
        try:
            found = (self._folder / _FILE).stat()
        except FileNotFoundError:
            return {}
        version = (found.st_mtime_ns, found.st_ino)
        read = self._read
        if read is None or read[0] != version:
            self._read = read = version, private_files.read_table(self._folder / _FILE, Member)
        return read[1]

    def revocations(self) -> tuple[Revocation, ...]:
        """What agents have to know of certificates that were revoked. Raises `OptionError`."""
        records = self._records()
        return tuple(Revocation(name, its.revoked_at) for name, its in records.items() if its.revoked_at)

    def check(self, name: str, certificate: bytes) -> None:
        """Raises `OptionError` if a node's certificate was revoked, or is of another key than it has joined with last.

        Nodes that never joined have their certificate from the authority on their machine. Reads the file only if it
        has changed.
        """
        member = self._records().get(name)
        if member is None:
            return
        if member.revoked:
            raise OptionError(
                "its certificate was revoked; a token for it alone lets it join again: faasmoe nodes token create "
                f"--node {name}"
            )
        from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415 (needs the extra)

        if certificates.fingerprint(certificates.public_of(certificate)) != member.fingerprint:
            raise OptionError("its certificate is of a key that it has replaced since")

    def join(self, name: str, member: Member, replace: bool) -> None:
        """Take in a node, or note its new address. Raises `OptionError` if the name is another's, or it was removed.

        `replace`: the node may have a new key.
        """

        def change(records: dict[str, Member]) -> None:
            known = records.get(name)
            if known and known.fingerprint != member.fingerprint and not (replace or known.removed):
                raise OptionError(
                    f"another node named {name} has joined: choose another --name, or give it a "
                    f"token for that node alone: faasmoe nodes token create --node {name}"
                )
            if known and known.removed and known.fingerprint == member.fingerprint and not replace:
                raise OptionError(
                    f"node {name} was removed; a token for that node alone lets it join again: "
                    f"faasmoe nodes token create --node {name}"
                )
            for other, its in records.items():
                if other != name and member.host and not its.removed and _where(its) == _where(member):
                    raise OptionError(f"{member.host}:{member.port} is the address of node {other}")
            if known and not member.host and not known.removed:
                records[name] = msgspec.structs.replace(known, fingerprint=member.fingerprint)
            else:
                revoked_at = known.revoked_at if known else 0.0
                records[name] = msgspec.structs.replace(member, revoked_at=revoked_at)

        self._change(change)

    def remove(self, name: str) -> None:
        """Have a node no longer belong to the cluster. Raises `OptionError` if none of that name has joined."""

        def change(records: dict[str, Member]) -> None:
            if name not in records or records[name].removed:
                raise OptionError(f"node {name}: none of that name has joined")
            records[name] = msgspec.structs.replace(records[name], removed=True)

        self._change(change)

    def revoke(self, name: str) -> None:
        """Have the certificate of a node, also of one that was removed, refused from now on. Raises `OptionError`."""

        def change(records: dict[str, Member]) -> None:
            if name not in records:
                raise OptionError(f"node {name}: none of that name has joined")
            now = self._clock().timestamp()
            records[name] = msgspec.structs.replace(records[name], removed=True, revoked=True, revoked_at=now)

        self._change(change)

    def _change(self, change: Callable[[dict[str, Member]], None]) -> None:
        with private_files.locked(self._folder):
            records = private_files.read_table(self._folder / _FILE, Member)
            change(records)
            private_files.write(self._folder / _FILE, msgspec.json.encode(records))


def _where(member: Member) -> tuple[str, int]:
    return member.host, member.port
