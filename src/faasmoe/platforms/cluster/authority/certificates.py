"""Keys (Ed25519, RFC 8032) and certificates (X.509, RFC 5280), as PEM. The module for which `cryptography` is needed.

A certificate's subject tells who has it: the organizational unit is the role, the common name the name.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from faasmoe.errors import OptionError

_EARLIER = timedelta(minutes=5)  # for clocks that are a little behind
_UNUSED = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "encipher_only": False,
    "decipher_only": False,
}


def new_key() -> bytes:
    """A new private key."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(key: bytes) -> Ed25519PrivateKey:
    """Raises `OptionError`."""
    try:
        found = load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise OptionError(f"no private key: {error}") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise OptionError(f"a key of kind {type(found).__name__}; it must be Ed25519")
    return found


def root(key: bytes, name: str, now: datetime, lifetime: timedelta) -> bytes:
    """The certificate of an authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    private = read_key(key)
    public = private.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **_UNUSED), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, None)
        .public_bytes(Encoding.PEM)
    )


def issue(
    authority_key: bytes,
    authority: bytes,
    public: Ed25519PublicKey,
    subject: tuple[str, str],
    period: tuple[datetime, datetime],
) -> bytes:
    """A certificate by an authority for `subject`, a role and a name, that is valid in `period`."""
    issuer = x509.load_pem_x509_certificate(authority)
    private = read_key(authority_key)
    role, name = subject
    unit, common = NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.COMMON_NAME
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer_key = issuer.public_key()
    assert isinstance(issuer_key, Ed25519PublicKey)  # noqa: S101 (it was made by `root`)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(unit, role), x509.NameAttribute(common, name)]))
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(period[0] - _EARLIER, issuer.not_valid_before_utc))
        .not_valid_after(period[1])
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **_UNUSED), critical=True
        )
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        .sign(private, None)
        .public_bytes(Encoding.PEM)
    )


def signing_request(key: bytes) -> bytes:
    """A request (PKCS #10, RFC 2986) to certify the public key of `key`. Shows that the sender has the private one."""
    empty = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return empty.sign(read_key(key), None).public_bytes(Encoding.PEM)


def requested(request: bytes) -> Ed25519PublicKey:
    """The public key of a signing request. Raises `OptionError` if the request is none, or not by the key's owner."""
    try:
        found = x509.load_pem_x509_csr(request)
        key = found.public_key()
        good = found.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise OptionError("the signing request is malformed") from error
    if not isinstance(key, Ed25519PublicKey) or not good:
        raise OptionError("the signing request must be by an Ed25519 key, and signed by it")
    return key


def period(certificate: bytes) -> tuple[datetime, datetime]:
    """From when and until when a certificate is valid. Raises `OptionError`."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise OptionError(f"no certificate: {error}") from error
    return found.not_valid_before_utc, found.not_valid_after_utc


def first(certificates: bytes) -> bytes:
    """The first of some certificates, as OpenSSL trusts all that it is given. Raises `OptionError` if there is none."""
    try:
        return x509.load_pem_x509_certificate(certificates).public_bytes(Encoding.PEM)
    except ValueError as error:
        raise OptionError(f"no certificate: {error}") from error


def made(certificate: bytes) -> datetime:
    """When `issue` has made a certificate, PEM or DER, to the second. Raises `OptionError`."""
    return _read(certificate).not_valid_before_utc + _EARLIER


def _read(certificate: bytes) -> x509.Certificate:
    """PEM or DER. Raises `OptionError`."""
    pem = certificate.startswith(b"-----")
    try:
        return (x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate)(certificate)
    except ValueError as error:
        raise OptionError(f"no certificate: {error}") from error


def public_of(certificate: bytes) -> Ed25519PublicKey:
    """The public key of a certificate, PEM or DER. Raises `OptionError`."""
    try:
        key = _read(certificate).public_key()
    except ValueError as error:
        raise OptionError(f"no certificate: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise OptionError(f"a certificate of a key of kind {type(key).__name__}; it must be Ed25519")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key (its SubjectPublicKeyInfo, as RFC 7469 pins keys), in URL-safe base64."""
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(info).digest()).rstrip(b"=").decode()
