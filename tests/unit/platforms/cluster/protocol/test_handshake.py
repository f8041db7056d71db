"""The handshake over a pair of sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role
from faasmoe.platforms.cluster.protocol import handshake, tls
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import Beat, Hello, TurnedAway, Welcome
from faasmoe.platforms.cluster.protocol.tls import Peer
from faasmoe.platforms.local.protocol.wire import Lost
from tests import authorities

WELCOME = Welcome(incarnation="i", cores=2, memory_budget=None)


class Ends:
    """A client and an agent, the latter in a thread."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.ours, self.theirs = socket.socketpair()
        self._thread = thread

    def agent(self, identity: ClusterIdentity) -> Future[tuple[Peer, Hello]]:
        return self._thread.submit(self._agent, identity)

    def _agent(self, identity: ClusterIdentity) -> tuple[Peer, Hello]:
        """As an agent does it."""
        connection = handshake.secure(self.theirs, identity, soon(), serving=True)
        try:
            met = handshake.authenticate(connection, soon())
            connection.send(WELCOME, soon())
            return met
        except LinkRefused as error:
            connection.send(TurnedAway(str(error)), soon())
            raise
        finally:
            connection.close()

    def client(self, identity: ClusterIdentity) -> Connection:
        return handshake.secure(self.ours, identity, soon(), serving=False)

    def greet(self, identity: ClusterIdentity) -> tuple[Peer, Welcome]:
        connection = self.client(identity)
        try:
            return handshake.greet(connection, Credentials(identity=identity, pool="p", head=True), "beat", soon())
        finally:
            connection.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ThreadPoolExecutor(1) as thread:
        ends = Ends(thread)
        with ends.ours, ends.theirs:
            yield ends


def soon() -> float:
    return time.monotonic() + 10


def test_both_sides_learn_of_each_other(ends: Ends, tmp_path: Path) -> None:
    agent = ends.agent(authorities.identity(tmp_path, name="näme"))
    peer, welcome = ends.greet(authorities.server(tmp_path))
    assert (peer.role, peer.name, welcome) == ("node", "näme", WELCOME)
    met, hello = agent.result(10)
    assert (met.role, met.name) == ("server", "server")
    assert (hello.lane, hello.pool, hello.head) == ("beat", "p", True)


def test_both_sides_refuse_another_authority(ends: Ends, tmp_path: Path) -> None:
    agent = ends.agent(authorities.identity(tmp_path / "a"))
    with pytest.raises(LinkRefused, match="it belongs to another cluster: its certificate is by"):
        ends.greet(authorities.server(tmp_path / "b"))
    with pytest.raises(LinkRefused, match="it belongs to another cluster: it does not know the authority"):
        agent.result(10)


def test_an_agent_refuses_a_server_of_another_authority(ends: Ends, tmp_path: Path) -> None:
    """Whose client believes the agent's authority, as a stranger's does."""
    node, stranger = authorities.identity(tmp_path / "a"), authorities.server(tmp_path / "b")
    (stranger.folder / "authority.pem").write_bytes(node.authority())
    agent = ends.agent(node)
    with pytest.raises(LinkRefused, match="it belongs to another cluster: it does not know the authority"):
        ends.greet(stranger)
    with pytest.raises(LinkRefused, match="it belongs to another cluster: its certificate is by"):
        agent.result(10)


@pytest.mark.parametrize(
    ("at", "seen", "told"),
    [
        (
            authorities.PAST,
            "its certificate has expired; the clock of this machine says 2",
            "this side has expired",
        ),
        (
            authorities.FUTURE,
            "its certificate is not valid yet; the clock of .*: compare the clocks",
            "not be valid yet",
        ),
    ],
)
@pytest.mark.parametrize("whose", ["agent", "client"])
def test_a_certificate_that_does_not_hold_now_is_named_on_both_sides(
    ends: Ends, tmp_path: Path, whose: str, at: timedelta, seen: str, told: str
) -> None:
    none = timedelta()
    agent = ends.agent(authorities.identity(tmp_path, at=at if whose == "agent" else none))
    with pytest.raises(LinkRefused, match=told if whose == "client" else seen):
        ends.greet(authorities.server(tmp_path, at if whose == "client" else none))
    with pytest.raises(LinkRefused, match=seen if whose == "client" else told):
        agent.result(10)


def test_a_node_cannot_call_another_node(ends: Ends, tmp_path: Path) -> None:
    agent = ends.agent(authorities.identity(tmp_path, name="a"))
    with pytest.raises(LinkRefused, match="it needs the certificate of a server, and has shown that of node b"):
        ends.greet(authorities.identity(tmp_path, name="b"))
    with pytest.raises(LinkRefused, match="has shown that of node b"):
        agent.result(10)


def test_a_server_is_no_node(ends: Ends, tmp_path: Path) -> None:
    agent = ends.agent(authorities.server(tmp_path))
    with pytest.raises(LinkRefused, match="it needs the certificate of a node, and has shown that of server"):
        ends.greet(authorities.server(tmp_path))
    with pytest.raises(Lost):
        agent.result(10)


def test_what_is_no_hello_ends_the_connection(ends: Ends, tmp_path: Path) -> None:
    agent = ends.agent(authorities.identity(tmp_path))
    client = ends.client(authorities.server(tmp_path))
    client.send(Beat(), soon())
    with pytest.raises(Lost, match="does not begin with a hello"):
        agent.result(10)
    client.close()


def test_a_client_that_says_nothing_is_given_up(ends: Ends, tmp_path: Path) -> None:
    with pytest.raises(Lost, match="it does not answer"):
        handshake.secure(ends.theirs, authorities.identity(tmp_path), time.monotonic() + 0.05, serving=True)


def test_who_does_not_speak_tls_is_told_apart(ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_LINGER", 0.05)
    ends.ours.sendall(b"FMcl\x01\x00" + bytes(60))  # as the protocol began before it had TLS
    with pytest.raises(LinkRefused, match=r"it does not speak TLS 1\.3"):
        handshake.secure(ends.theirs, authorities.identity(tmp_path), soon(), serving=True)


def test_a_certificate_is_needed(ends: Ends, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"certificate\.pem: cannot be read"):
        handshake.secure(ends.ours, ClusterIdentity(tmp_path), soon(), serving=False)
    node = authorities.identity(tmp_path, Role.NODE)
    (node.folder / "key.pem").chmod(0o640)
    with pytest.raises(OptionError, match=r"key\.pem: others may read or write it"):
        handshake.secure(ends.ours, node, soon(), serving=False)
