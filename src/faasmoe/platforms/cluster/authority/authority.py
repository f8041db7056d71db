"""The authority of a cluster, which certifies its server and its nodes. It is made at first start."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import private_files
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role, utc_now

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KEY, CERTIFICATE = "authority.key", "authority.pem"
OWN_LIFETIME = timedelta(days=3650)  # of the authority itself
LIFETIME = timedelta(days=30)  # of the certificates of server and nodes
RENEWED = timedelta(days=10)  # before the end
ORCHESTRATOR_LIFETIME = timedelta(days=1)  # of the certificates of orchestrators, which the server renews
ORCHESTRATOR_RENEWED = timedelta(hours=8)  # after they were made


class Authority:
    """The authority whose key and certificate are in `folder`. For all threads, and for processes side by side."""

    def __init__(
        self, folder: Path, clock: Callable[[], datetime] = utc_now, lifetime: timedelta = LIFETIME
    ) -> None:
        """Makes the authority if there is none. Raises `OptionError`, also if the extra is not installed."""
        require_extra()
        from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415

        self._certificates = certificates
        self._clock = clock
        self._lifetime = lifetime
        with private_files.locked(folder):
            if not is_there(folder):
                key = certificates.new_key()
                name = f"FaaSMoE cluster {secrets.token_hex(4)}"  # OpenSSL finds issuers by name, so it is unique
                private_files.write(folder / CERTIFICATE, certificates.root(key, name, clock(), OWN_LIFETIME))
                private_files.write(folder / KEY, key)
        self.certificate = private_files.read(folder / CERTIFICATE)
        self._key = private_files.read(folder / KEY)
        begin, end = certificates.period(self.certificate)
        if clock() < begin:
            raise OptionError(f"{folder}: the authority was made on {begin} UTC, later than now: set the clock")
        if clock() >= end:
            raise OptionError(
                f"{folder}: the authority has expired: remove the folder, and have all nodes join again"
            )

    @property
    def pin(self) -> str:
        """The fingerprint of its public key, by which a joining node knows it."""
        return self._certificates.fingerprint(self._certificates.public_of(self.certificate))

    def certify(self, key: Ed25519PublicKey, role: Role, name: str) -> bytes:
        """A certificate of a public key."""
        now = self._clock()
        lifetime = min(self._lifetime, ORCHESTRATOR_LIFETIME) if role is Role.ORCHESTRATOR else self._lifetime
        end = min(now + lifetime, self._certificates.period(self.certificate)[1])
        return self._certificates.issue(self._key, self.certificate, key, (role, name), (now, end))

    def certify_orchestrator(self, request: bytes, node: str) -> tuple[bytes, bytes]:
        """A certificate of a node's orchestrators, for their signing request, and that of the authority.

        Raises `OptionError` if the request is malformed.
        """
        key = self._certificates.requested(request)
        return self.certify(key, Role.ORCHESTRATOR, node), self.certificate

    def provide(self, identity: ClusterIdentity, role: Role, name: str) -> None:
        """See that an identity on this machine has a certificate of this authority that holds for a while."""
        if not self.is_due(identity):
            return
        key = self._certificates.read_key(identity.key()).public_key()
        identity.take(self.certify(key, role, name), self.certificate)

    def is_due(self, identity: ClusterIdentity) -> bool:
        """Whether an identity has to be renewed, or is that of another authority."""
        return not identity.exists or identity.authority() != self.certificate or is_due(identity)


def is_there(folder: Path) -> bool:
    """Whether the folder has an authority."""
    return (folder / KEY).exists()


def is_due(identity: ClusterIdentity) -> bool:
    """Whether a certificate is to be renewed: a third of its time is left, or less."""
    begin, end = identity.period()
    return identity.clock() >= end - min(RENEWED, (end - begin) / 3)


def require_extra() -> None:
    """Raises `OptionError` if `cryptography` is not installed."""
    try:
        import cryptography  # noqa: F401, PLC0415
    except ImportError as error:
        raise OptionError("clusters need the package cryptography: pip install cryptography") from error
