"""The authority of a cluster and what it certifies."""

from __future__ import annotations

import builtins
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import authority as authorities
from faasmoe.platforms.cluster.authority import certificates
from faasmoe.platforms.cluster.authority.authority import LIFETIME, OWN_LIFETIME, RENEWED, Authority
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role, utc_now


def test_it_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    assert not authorities.is_there(folder)
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: Authority(folder), range(4)))
    assert len({each.certificate for each in made} | {Authority(folder).certificate}) == 1
    assert authorities.is_there(folder)
    for file in ("authority.key", "authority.pem"):
        assert (folder / file).stat().st_mode & 0o777 == 0o600
    assert Authority(tmp_path / "other").pin != made[0].pin


def test_a_certificate_says_who_it_is_and_how_long(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    key = certificates.read_key(certificates.new_key()).public_key()
    found = x509.load_pem_x509_certificate(authority.certify(key, Role.NODE, "näme"))
    root = x509.load_pem_x509_certificate(authority.certificate)
    found.verify_directly_issued_by(root)
    subject = {each.oid: each.value for each in found.subject}
    assert subject == {NameOID.ORGANIZATIONAL_UNIT_NAME: "node", NameOID.COMMON_NAME: "näme"}
    assert found.not_valid_after_utc - utc_now() < LIFETIME
    assert root.not_valid_after_utc - utc_now() > OWN_LIFETIME - timedelta(minutes=1)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_an_identity_is_provided_and_renewed_in_its_last_third(tmp_path: Path) -> None:
    now = utc_now()
    identity = ClusterIdentity(tmp_path / "node", lambda: now)
    authority = Authority(tmp_path, lambda: now)
    authority.provide(identity, Role.NODE, "a")
    first, key = identity.certificate(), identity.key()
    now += LIFETIME - RENEWED - timedelta(minutes=1)
    authority.provide(identity, Role.NODE, "a")
    assert identity.certificate() == first
    now += timedelta(minutes=2)
    authority.provide(identity, Role.NODE, "a")
    assert identity.certificate() != first
    assert identity.key() == key
    now += LIFETIME - timedelta(hours=1)
    identity.check()
    now += timedelta(hours=2)
    with pytest.raises(OptionError, match=r"has expired on .* UTC .*: join again with a new token"):
        identity.check()


def test_an_identity_of_another_authority_is_replaced(tmp_path: Path) -> None:
    identity = ClusterIdentity(tmp_path / "node")
    for folder in ("one", "two"):
        authority = Authority(tmp_path / folder)
        authority.provide(identity, Role.NODE, "a")
        assert identity.authority() == authority.certificate


def test_certificates_of_orchestrators_hold_for_a_day_and_say_when_they_were_made(tmp_path: Path) -> None:
    now = utc_now().replace(microsecond=0)
    authority = Authority(tmp_path, lambda: now)
    request = certificates.signing_request(certificates.new_key())
    made, root = authority.certify_orchestrator(request, "a")
    assert root == authority.certificate
    assert certificates.period(made)[1] == now + timedelta(days=1)
    assert certificates.made(made) == now
    assert certificates.made(ssl.PEM_cert_to_DER_cert(made.decode())) == now


def test_a_certificate_from_the_future_is_not_taken(tmp_path: Path) -> None:
    identity = ClusterIdentity(tmp_path / "node")
    Authority(tmp_path)
    ahead = Authority(tmp_path, lambda: utc_now() + timedelta(hours=1))
    with pytest.raises(OptionError, match=r"is not valid before .*, and the clock .* says .*: set the clock"):
        ahead.provide(identity, Role.NODE, "a")
    assert not identity.exists
    Authority(tmp_path, lambda: utc_now() + timedelta(minutes=4)).provide(identity, Role.NODE, "a")


def test_an_authority_that_does_not_hold_now_says_so(tmp_path: Path) -> None:
    Authority(tmp_path / "ahead", lambda: utc_now() + timedelta(hours=1))
    with pytest.raises(OptionError, match=r"the authority was made on .* UTC, later than now: set the clock"):
        Authority(tmp_path / "ahead")
    Authority(tmp_path, lambda: utc_now() - OWN_LIFETIME)
    with pytest.raises(OptionError, match="the authority has expired: remove the folder"):
        Authority(tmp_path)


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "cryptography":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match="clusters need the package cryptography: pip install cryptography"):
        Authority(tmp_path)


def test_requests_are_of_the_right_kind_and_signed() -> None:
    key = certificates.new_key()
    request = certificates.signing_request(key)
    assert certificates.requested(request) == certificates.read_key(key).public_key()
    for wrong in (b"", b"x", request.replace(b"A", b"B", 1), request[:-60]):
        with pytest.raises(OptionError, match="signing request"):
            certificates.requested(wrong)
    other = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    with pytest.raises(OptionError, match="by an Ed25519 key"):
        certificates.requested(builder.sign(other, SHA256()).public_bytes(Encoding.PEM))


def test_keys_and_certificates_that_are_none() -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for key, error in ((b"x", "no private key"), (pem, "RSAPrivateKey; it must be Ed25519")):
        with pytest.raises(OptionError, match=error):
            certificates.read_key(key)
    for read in (certificates.public_of, certificates.period):
        with pytest.raises(OptionError, match="no certificate"):
            read(b"x")
