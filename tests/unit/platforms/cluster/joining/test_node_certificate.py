"""How a node comes to its certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority import authority as authorities_of
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.joining import node_certificate
from faasmoe.platforms.cluster.joining.node_certificate import NodeCertificate
from tests import authorities
from tests.unit.platforms.cluster.joining.joins import ADDRESS, JoinServer
from tests.waiting import wait_until

LOOPBACK, OPEN = NodeAddress("127.0.0.1", 7000), NodeAddress("10.0.0.2", 7000)


def of(folder: Path, server: NodeAddress | None = None, token: Path | None = None) -> NodeCertificate:
    return NodeCertificate("a", ClusterFolder(folder), server, token)


def token_file(server: JoinServer, folder: Path, node: str = "") -> Path:
    file = folder / "token"
    file.write_text(".".join(("faasmoe-join-1", *server.token(node))))
    file.chmod(0o600)
    return file


def test_a_node_on_loopback_needs_nothing(tmp_path: Path) -> None:
    certificate = of(tmp_path)
    certificate.prepare(LOOPBACK)
    with certificate.held(LOOPBACK, None):
        certificate.identity.check()
    assert authorities_of.is_there(tmp_path)


def test_a_node_on_the_servers_machine_needs_no_token(tmp_path: Path, server: JoinServer) -> None:
    certificate = of(server.folder.path, ADDRESS)
    certificate.prepare(OPEN)
    with certificate.held(OPEN, 7):
        assert server.members.members()["a"].memory_budget == 7


@pytest.mark.parametrize("server", [None, ADDRESS])
def test_others_are_told_what_they_need(tmp_path: Path, server: NodeAddress | None) -> None:
    wanted = "--token-file FILE" if server else "--join HOST:PORT and --token-file FILE"
    with pytest.raises(OptionError, match=f"node a has no certificate in .*: give it {wanted}$"):
        of(tmp_path, server).prepare(OPEN)
    assert not authorities_of.is_there(tmp_path)
    with pytest.raises(OptionError, match="--token-file needs --join"):
        of(tmp_path, None, tmp_path / "token")


def test_a_node_that_has_joined_starts_again_without_a_token(tmp_path: Path, server: JoinServer) -> None:
    first = of(tmp_path / "n", ADDRESS, token_file(server, tmp_path))
    first.prepare(OPEN)
    assert not first.identity.exists
    with first.held(OPEN, None):
        first.identity.check()
    (tmp_path / "token").unlink()
    for port, token in ((7005, None), (7006, tmp_path / "token")):  # a unit of systemd may still name the file
        again = of(tmp_path / "n", ADDRESS, token)
        again.prepare(OPEN)
        with again.held(NodeAddress("10.0.0.2", port), None):
            assert server.members.members()["a"].port == port
    with pytest.raises(OptionError, match="token: cannot be read"):
        of(tmp_path / "other", ADDRESS, tmp_path / "token").prepare(OPEN)


def test_a_node_goes_on_without_the_server_and_asks_again(
    tmp_path: Path, server: JoinServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_certificate, "SOON", 0.05)
    with (first := of(tmp_path / "n", ADDRESS, token_file(server, tmp_path))).held(OPEN, None):
        pass
    server.up = False
    again = of(tmp_path / "n", ADDRESS)
    again.prepare(OPEN)
    with again.held(NodeAddress("10.0.0.2", 7005), None):
        assert "node a has a certificate, and goes on without 10.0.0.9:7001: it cannot be reached" in caplog.text
        server.up = True
        assert wait_until(lambda: server.members.members()["a"].port == 7005)
    assert first.identity.folder == again.identity.folder


def test_a_node_that_is_refused_says_so_unless_a_token_helps(tmp_path: Path, server: JoinServer) -> None:
    with of(tmp_path / "n", ADDRESS, token_file(server, tmp_path)).held(OPEN, None):
        pass
    server.members.remove("a")
    again = of(tmp_path / "n", ADDRESS)
    with (
        pytest.raises(OptionError, match=r"node a is refused by 10\.0\.0\.9:7001: node a was removed"),
        again.held(OPEN, 1),
    ):
        pass
    with of(tmp_path / "n", ADDRESS, token_file(server, tmp_path, "a")).held(OPEN, None):
        assert list(server.members.members()) == ["a"]


def test_an_expired_certificate_is_replaced_by_a_token(tmp_path: Path, server: JoinServer) -> None:
    authorities.identity(tmp_path / "n", at=authorities.PAST)
    (tmp_path / "n" / "authority.key").unlink()
    with pytest.raises(OptionError, match=r"the certificate has expired on .*: join again with a new token"):
        of(tmp_path / "n", ADDRESS).prepare(OPEN)
    certificate = of(tmp_path / "n", ADDRESS, token_file(server, tmp_path))
    certificate.prepare(OPEN)
    with certificate.held(OPEN, None):
        certificate.identity.check()


def test_nobody_renews_a_certificate_without_join(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authorities.identity(tmp_path, at=authorities.PAST / 2)
    (tmp_path / "authority.key").unlink()
    of(tmp_path)._renew_here()
    assert "the certificate of node a ends on" in caplog.text
    assert "without --join nobody renews it" in caplog.text
