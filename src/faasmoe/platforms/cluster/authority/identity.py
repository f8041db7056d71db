"""Who a process is to others of its cluster: a private key, a certificate of it, and the authority's certificate."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import private_files

KEY, CERTIFICATE, AUTHORITY = "key.pem", "certificate.pem", "authority.pem"
_FILES = (KEY, CERTIFICATE, AUTHORITY)


class Role(StrEnum):
    """What the owner of a certificate may do: a node serves, a server orders and calls, an orchestrator only calls."""

    NODE = "node"
    SERVER = "server"
    ORCHESTRATOR = "orchestrator"  # on a node, whose name it has


def utc_now() -> datetime:
    """The time of certificates."""
    return datetime.now(UTC)


class ClusterIdentity:
    """The files of one identity in a folder of its own. For all threads, and for processes side by side.

    They may be renewed while others use them: contexts are made from what is there now.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self.folder = folder
        self.clock = clock
        self._lock = threading.Lock()
        self._made: dict[tuple[bool, bool], ssl.SSLContext] = {}
        self._seen = b""  # the certificate of these

    @property
    def exists(self) -> bool:
        """Whether it has a key and a certificate."""
        return all((self.folder / name).exists() for name in _FILES)

    def key(self) -> bytes:
        """The private key; a new one if there is none. Raises `OptionError`."""
        from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415 (needs the extra)

        with private_files.locked(self.folder):
            file = self.folder / KEY
            if not file.exists():
                private_files.write(file, certificates.new_key())
            return private_files.read(file)

    def certificate(self) -> bytes:
        """Raises `OptionError` if there is none."""
        return private_files.read(self.folder / CERTIFICATE)

    def authority(self) -> bytes:
        """The authority's certificate. Raises `OptionError` if there is none."""
        return private_files.read(self.folder / AUTHORITY)

    def take(self, certificate: bytes, authority: bytes) -> None:
        """Keep a new certificate of the key. Raises `OptionError` if it is not valid by this machine's clock."""
        _check_period(certificate, self.clock())
        with private_files.locked(self.folder):
            private_files.write(self.folder / AUTHORITY, authority)
            private_files.write(self.folder / CERTIFICATE, certificate)

    def check(self) -> None:
        """Raises `OptionError` if there is no certificate, or it is not valid now."""
        _check_period(self.certificate(), self.clock())

    def period(self) -> tuple[datetime, datetime]:
        """From when and until when the certificate is valid. Raises `OptionError`."""
        from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415 (needs the extra)

        return certificates.period(self.certificate())

    def context(self, *, serving: bool, strangers: bool = False) -> ssl.SSLContext:
        """TLS 1.3 with this identity, to accept connections or to make them. Raises `OptionError`.

        The other side must have a certificate of the same authority; its role and name are for the caller to check.
        `strangers`: it may also have none.
        """
        with self._lock:
            if (seen := self.certificate()) != self._seen:
                self._made, self._seen = {}, seen
            kind = (serving, strangers)
            if kind not in self._made:
                self._made[kind] = self._context(serving)
                if strangers:
                    self._made[kind].verify_mode = ssl.CERT_OPTIONAL
            return self._made[kind]

    def _context(self, serving: bool) -> ssl.SSLContext:
        context = bare_context(serving=serving)
        for name in _FILES:
            private_files.read(self.folder / name)  # others must not
        try:
            context.load_cert_chain(self.folder / CERTIFICATE, self.folder / KEY)
            context.load_verify_locations(self.folder / AUTHORITY)
        except (ssl.SSLError, OSError) as error:
            raise OptionError(f"{self.folder}: its key and certificate are no use: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def bare_context(*, serving: bool) -> ssl.SSLContext:
    """TLS 1.3 without certificates. Names are not those of hosts, so they are checked by the caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serving else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if serving:
        context.num_tickets = 0  # sessions are not resumed
    return context


def _check_period(certificate: bytes, now: datetime) -> None:
    from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415 (needs the extra)

    begin, end = certificates.period(certificate)
    if now < begin:
        raise OptionError(
            f"the certificate is not valid before {begin:%Y-%m-%d %H:%M:%S} UTC, and the clock of this machine says "
            f"{now:%Y-%m-%d %H:%M:%S}: set the clock of one of the two machines"
        )
    if now >= end:
        raise OptionError(
            f"the certificate has expired on {end:%Y-%m-%d %H:%M:%S} UTC (the clock of this machine says "
            f"{now:%Y-%m-%d %H:%M:%S}): join again with a new token"
        )
