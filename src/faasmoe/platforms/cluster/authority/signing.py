"""Signatures (Ed25519) by the key of a certificate.

Each begins with the purpose for which it was made, so that none is good for another one. Signatures of TLS 1.3 by the
same key begin with bytes that no purpose has (RFC 8446, section 4.4.3).
"""

from __future__ import annotations

from collections.abc import Callable

_END = b"\0"  # of the purpose


def signer(key: bytes, purpose: str) -> Callable[[bytes], bytes]:
    """What signs bytes with the private key `key` (PEM). Raises `OptionError` if it is none."""
    from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415 (needs the extra)

    private = certificates.read_key(key)
    return lambda data: private.sign(purpose.encode() + _END + data)


def verifier(certificate: bytes, purpose: str) -> Callable[[bytes, bytes], bool]:
    """What tells whether a signature of bytes, `(signature, data)`, is by the key of `certificate`, PEM or DER.

    Raises `OptionError` if that is no certificate.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415

    public = certificates.public_of(certificate)

    def verify(signature: bytes, data: bytes) -> bool:
        try:
            public.verify(signature, purpose.encode() + _END + data)
        except InvalidSignature:
            return False
        return True

    return verify
