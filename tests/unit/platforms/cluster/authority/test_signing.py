"""Signatures by the keys of certificates."""

from __future__ import annotations

import ssl
from pathlib import Path

from faasmoe.platforms.cluster.authority.signing import signer, verifier
from tests import authorities


def test_a_signature_is_good_for_its_key_purpose_and_bytes_alone(tmp_path: Path) -> None:
    one, two = authorities.identity(tmp_path, name="a"), authorities.identity(tmp_path, name="b")
    signature = signer(one.key(), "p")(b"x")
    der = ssl.PEM_cert_to_DER_cert(one.certificate().decode())
    for certificate in (one.certificate(), der):
        assert verifier(certificate, "p")(signature, b"x")
    assert not verifier(two.certificate(), "p")(signature, b"x")
    assert not verifier(one.certificate(), "q")(signature, b"x")
    assert not verifier(one.certificate(), "p")(signature, b"y")
    assert not verifier(one.certificate(), "p")(b"", b"x")
