"""A node and the server that it joins: each test holds both sides."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import certificates
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, bare_context, utc_now
from faasmoe.platforms.cluster.authority.tokens import JoinToken
from faasmoe.platforms.cluster.joining import join_messages
from faasmoe.platforms.cluster.joining.enrolment import Enrolment
from faasmoe.platforms.cluster.joining.join_messages import Announce, NodeOffer
from faasmoe.platforms.cluster.protocol import tls
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import TurnedAway
from faasmoe.platforms.cluster.protocol.tls import secured
from faasmoe.platforms.local.protocol.wire import Lost
from tests import authorities
from tests.unit.platforms.cluster.joining.joins import ADDRESS, JoinServer


def test_a_node_joins_by_a_token_once_and_then_by_its_certificate(
    server: JoinServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    token = server.token()
    server.enrolment(tmp_path / "n").join(token)
    identity = ClusterFolder(tmp_path / "n").node("a")
    identity.check()
    assert identity.authority() == server.authority.certificate
    (member,) = server.members.members().values()
    fingerprint = certificates.fingerprint(certificates.public_of(identity.certificate()))
    assert (member.host, member.port, member.memory_budget) == ("10.0.0.2", 7000, 1 << 30)
    assert member.fingerprint == fingerprint
    before = identity.certificate()
    server.enrolment(tmp_path / "n", port=7007).announce()
    assert server.members.members()["a"].port == 7007
    assert identity.certificate() == before
    server.finish()
    assert "node a has joined" in caplog.text
    assert "node a is at 10.0.0.2:7007" in caplog.text
    assert token.secret not in caplog.text
    assert set(server.asked) == {ADDRESS}


def test_a_certificate_is_renewed_in_time(server: JoinServer, tmp_path: Path) -> None:
    old = authorities.identity(tmp_path / "server", name="a", at=timedelta(days=-25))
    before, key = old.certificate(), old.key()
    Enrolment("a", old, ADDRESS, NodeOffer("10.0.0.2", 1, None)).announce()
    assert old.certificate() != before
    assert old.key() == key
    assert old.period()[1] > utc_now() + timedelta(days=29)


@pytest.mark.parametrize("wrong", ["unknown", "expired", "revoked", "of another node"])
def test_a_token_that_is_no_use_is_told_to_both_sides(
    server: JoinServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    token = server.token("b" if wrong == "of another node" else "")
    cause = {
        "unknown": "its token is unknown",
        "expired": f"its token {token.id} has expired",
        "revoked": f"its token {token.id} was revoked",
        "of another node": f"its token {token.id} is for node b",
    }[wrong]
    if wrong == "unknown":
        token = JoinToken(token.id, "x" * 43, token.pin)
    if wrong == "revoked":
        server.tokens.revoke(token.id)
    if wrong == "expired":
        server.tokens._clock = lambda: utc_now() + timedelta(hours=2)
    with pytest.raises(OptionError, match=rf"node a cannot join at 10\.0\.0\.9:7001: {cause}$"):
        server.enrolment(tmp_path / "n").join(token)
    server.finish()
    assert f"node 'a' from 10.0.0.2 cannot join: {cause}" in caplog.text
    assert server.members.members() == {}
    assert not ClusterFolder(tmp_path / "n").node("a").exists


def test_a_node_tells_nothing_to_a_server_of_another_authority(server: JoinServer, tmp_path: Path) -> None:
    token = server.token()._replace(pin=Authority(tmp_path / "other").pin)
    with pytest.raises(
        OptionError, match="it is not the server that has made the token: its authority is another"
    ):
        server.enrolment(tmp_path / "n").join(token)
    assert len(server.asked) == 1  # the token was not sent
    assert server.members.members() == {}


def test_a_server_that_only_knows_the_authority_gets_no_token(server: JoinServer, tmp_path: Path) -> None:
    """It shows the right authority, and then cannot show a certificate by it."""
    stranger = authorities.server(tmp_path / "stranger")
    server.folder.server.context(serving=True)  # there was a good one
    for file in ("key.pem", "certificate.pem"):
        (server.folder.server.folder / file).write_bytes((stranger.folder / file).read_bytes())
    with pytest.raises(OptionError, match="it belongs to another cluster"):
        server.enrolment(tmp_path / "n").join(server.token())
    assert server.members.members() == {}


def test_a_server_cannot_bring_an_authority_of_its_own_along(server: JoinServer, tmp_path: Path) -> None:
    """It shows the right one first, and its own after it."""
    stranger = authorities.server(tmp_path / "stranger")
    for file in ("key.pem", "certificate.pem"):
        (server.folder.server.folder / file).write_bytes((stranger.folder / file).read_bytes())
    token = server.token()
    server.authority.certificate += stranger.authority()
    with pytest.raises(OptionError, match="it belongs to another cluster: its certificate is by an authority"):
        server.enrolment(tmp_path / "n").join(token)
    assert server.members.members() == {}
    assert not ClusterFolder(tmp_path / "n").node("a").exists


def test_a_node_is_not_taken_for_the_server(server: JoinServer, tmp_path: Path) -> None:
    node = authorities.identity(tmp_path / "server", name="b")
    for file in ("key.pem", "certificate.pem"):
        (server.folder.server.folder / file).write_bytes((node.folder / file).read_bytes())
    with pytest.raises(OptionError, match="needs the certificate of a server, and has shown that of node b"):
        server.enrolment(tmp_path / "n").join(server.token())


def test_two_nodes_of_one_name(server: JoinServer, tmp_path: Path) -> None:
    server.enrolment(tmp_path / "one").join(server.token())
    with pytest.raises(OptionError, match=r"node a cannot join .* another node named a has joined"):
        server.enrolment(tmp_path / "two", port=7009).join(server.token())
    server.enrolment(tmp_path / "two", port=7009).join(server.token("a"))
    with pytest.raises(LinkRefused, match="another node named a has joined"):
        server.enrolment(tmp_path / "one").announce()
    assert server.members.members()["a"].port == 7009


def test_a_removed_node_cannot_announce_itself_or_renew(server: JoinServer, tmp_path: Path) -> None:
    server.enrolment(tmp_path / "n").join(server.token())
    server.members.remove("a")
    with pytest.raises(LinkRefused, match="node a was removed"):
        server.enrolment(tmp_path / "n").announce()


def test_clocks_that_differ_are_named_before_anything_is_kept(
    server: JoinServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.authority, "_clock", lambda: utc_now() + timedelta(hours=3))
    with pytest.raises(OptionError, match=r"is not valid before .* the clock of this machine says"):
        server.enrolment(tmp_path / "n").join(server.token())
    assert not ClusterFolder(tmp_path / "n").node("a").exists


def test_a_server_that_is_not_there_is_named(server: JoinServer, tmp_path: Path) -> None:
    server.up = False
    with pytest.raises(
        OptionError, match=r"node a cannot join at 10\.0\.0\.9:7001: it cannot be reached: Connection"
    ):
        server.enrolment(tmp_path / "n").join(server.token())
    authorities.identity(tmp_path / "n")
    with pytest.raises(Lost, match="cannot be reached"):
        server.enrolment(tmp_path / "n").announce()


def test_an_expired_certificate_announces_nobody(server: JoinServer, tmp_path: Path) -> None:
    old = authorities.identity(tmp_path / "server", name="a", at=authorities.PAST)
    with pytest.raises(LinkRefused, match="the certificate of this side has expired"):
        Enrolment("a", ClusterIdentity(old.folder), ADDRESS, NodeOffer("10.0.0.2", 1, None)).announce()


@pytest.mark.parametrize(
    ("offer", "error"),
    [
        (NodeOffer("10.0.0.2", 0, None), "its port must be that on which it listens"),
        (NodeOffer("a b", 1, None), "must be an IP address"),
        (NodeOffer("10.0.0.2", 1 << 20, None), "must be HOST:PORT"),
    ],
)
def test_an_offer_that_is_none_is_refused(
    server: JoinServer, tmp_path: Path, offer: NodeOffer, error: str
) -> None:
    enrolment = Enrolment("a", ClusterFolder(tmp_path / "n").node("a"), ADDRESS, offer)
    with pytest.raises(OptionError, match=error):
        enrolment.join(server.token())
    with pytest.raises(OptionError, match="must be 1 to 64 characters"):
        server.enrolment(tmp_path / "n", name="x" * 65).join(server.token())
    assert server.members.members() == {}


def test_a_key_of_somebody_else_is_not_certified(server: JoinServer, tmp_path: Path) -> None:
    server.enrolment(tmp_path / "n").join(server.token())
    identity = ClusterFolder(tmp_path / "n").node("a")
    deadline = time.monotonic() + 10
    connection = Connection(secured(server.connect(("", 1), 1), identity.context(serving=False), deadline), 4096)
    other = certificates.signing_request(certificates.new_key())
    connection.send(Announce(NodeOffer("10.0.0.2", 7000, None), other), deadline)
    answer = connection.received(join_messages.read_answered, deadline)
    assert answer == TurnedAway("its signing request must be by the key of its certificate")
    connection.close()


def test_strangers_and_garbage_end_their_connection(
    server: JoinServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_LINGER", 0.05)
    deadline = time.monotonic() + 10
    with server.connect(("", 1), 1) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert isinstance(sock, socket.socket)
        server.finish()
    connection = Connection(secured(server.connect(("", 1), 1), bare_context(serving=False), deadline), 4096)
    connection.send(Announce(NodeOffer("10.0.0.2", 7000, None)), deadline)
    answer = connection.received(join_messages.read_answered, deadline)
    assert answer == TurnedAway("it needs the certificate of a node, and has shown none")
    connection.close()
    assert "a connection from 10.0.0.2 to join was refused: it does not speak TLS 1.3" in caplog.text


def test_a_node_that_listens_everywhere_offers_the_address_by_which_it_reaches_the_server(tmp_path: Path) -> None:
    class Connected:
        socket = SimpleNamespace(getsockname=lambda: ("10.0.0.3", 5))

    for host, offered in (("0.0.0.0", "10.0.0.3"), ("::", "10.0.0.3"), ("10.0.0.2", "10.0.0.2")):
        enrolment = Enrolment("a", ClusterIdentity(tmp_path), ADDRESS, NodeOffer(host, 7, 9))
        assert enrolment._offer_over(Connected()) == NodeOffer(offered, 7, 9)
