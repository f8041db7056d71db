"""Identities while they are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role
from tests import authorities


def test_contexts_are_kept_until_the_certificate_is_renewed(tmp_path: Path) -> None:
    identity = authorities.identity(tmp_path)
    contexts = [identity.context(serving=serving) for serving in (True, False)]
    assert [identity.context(serving=serving) for serving in (True, False)] == contexts
    assert identity.context(serving=True, strangers=True) not in contexts
    key = identity.key()
    authority = Authority(tmp_path)
    from faasmoe.platforms.cluster.authority import certificates

    renewed = authority.certify(certificates.read_key(key).public_key(), Role.NODE, "a")
    ClusterIdentity(identity.folder).take(renewed, authority.certificate)  # another process
    assert identity.context(serving=True) not in contexts


def test_a_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    one, two = authorities.identity(tmp_path, name="a"), authorities.identity(tmp_path, name="b")
    (one.folder / "key.pem").write_bytes(two.key())
    with pytest.raises(OptionError, match="nodes/a: its key and certificate are no use"):
        one.context(serving=True)


def test_each_node_of_a_machine_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ClusterFolder.of(tmp_path)
    assert {folder.server.folder, folder.node("a").folder, folder.node("b").folder} == {
        tmp_path / "server",
        tmp_path / "nodes" / "a",
        tmp_path / "nodes" / "b",
    }
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert ClusterFolder.of(None).path == ClusterFolder.of("").path == Path("/data/faasmoe/cluster")
