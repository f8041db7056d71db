"""The handshake over a pair of sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.protocol import handshake
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD, LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import HANDSHAKE_HEAD, Credentials, read_secret
from faasmoe.platforms.cluster.protocol.messages import Beat, Challenge, Hello, Proof, TurnedAway, Welcome
from faasmoe.platforms.local.protocol.wire import Lost

SECRET = b"0123456789abcdef"
WELCOME = Welcome(incarnation="i", cores=2, memory_budget=None)


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours, MOST_HEAD), Connection(theirs, HANDSHAKE_HEAD)


@pytest.fixture
def agent(ends: tuple[Connection, Connection]) -> Iterator[Future[Hello]]:
    """The agent's side, as an agent does it."""
    connection = ends[1]

    def run() -> Hello:
        try:
            hello = handshake.authenticate(connection, SECRET, "a", soon())
        except LinkRefused as error:
            connection.send(TurnedAway(str(error)), soon())
            raise
        connection.send(WELCOME, soon())
        return hello

    with ThreadPoolExecutor(1) as other:
        yield other.submit(run)


def soon() -> float:
    return time.monotonic() + 10


def test_both_sides_learn_of_each_other(ends: tuple[Connection, Connection], agent: Future[Hello]) -> None:
    credentials = Credentials(secret=SECRET, pool="p", head=True)
    challenge, welcome = handshake.greet(ends[0], credentials, "beat", soon())
    assert (challenge.node, welcome) == ("a", WELCOME)
    hello = agent.result(10)
    assert (hello.lane, hello.pool, hello.head) == ("beat", "p", True)


def test_a_client_does_not_talk_with_an_agent_of_another_secret(
    ends: tuple[Connection, Connection], agent: Future[Hello]
) -> None:
    with pytest.raises(LinkRefused, match="it has another secret"):
        handshake.greet(ends[0], Credentials(secret=SECRET[::-1]), "calls", soon())
    ends[0].cut()
    with pytest.raises(Lost, match="closed by the other side"):
        agent.result(10)


def test_an_agent_turns_away_who_does_not_have_the_secret(
    ends: tuple[Connection, Connection], agent: Future[Hello]
) -> None:
    connection = ends[0]
    connection.send(Hello(lane="orders", pool="", head=False, nonce=bytes(32)), soon())
    challenge = connection.expect(Challenge, soon())
    connection.send(Proof(challenge.proof), soon())  # its own proof, sent back
    with pytest.raises(LinkRefused, match="another secret"):
        connection.expect(Welcome, soon())
    with pytest.raises(LinkRefused, match="another secret"):
        agent.result(10)


def test_a_proof_is_good_for_its_own_connection_alone() -> None:
    hello = Hello(lane="orders", pool="p", head=False, nonce=bytes(32))
    proofs = {
        handshake._proof(SECRET, side, said, node, nonce)
        for side in ("agent", "client")
        for said in (
            hello,
            Hello(lane="calls", pool="p", head=False, nonce=bytes(32)),
            Hello(lane="orders", pool="q", head=False, nonce=bytes(32)),
            Hello(lane="orders", pool="p", head=True, nonce=bytes(32)),
            Hello(lane="orders", pool="p", head=False, nonce=b"x" * 32),
        )
        for node in "ab"
        for nonce in (b"1", b"2")
    }
    assert len(proofs) == 40


@pytest.mark.parametrize("first", [Beat(), Hello(lane="beat", pool="", head=False, nonce=b"short")])
def test_what_is_no_hello_ends_the_connection(
    ends: tuple[Connection, Connection], agent: Future[Hello], first: object
) -> None:
    ends[0].send(first, soon())
    with pytest.raises(Lost, match="does not begin with a hello"):
        agent.result(10)


def test_a_client_that_says_nothing_is_given_up(ends: tuple[Connection, Connection]) -> None:
    with pytest.raises(Lost, match="it does not answer"):
        handshake.authenticate(ends[1], SECRET, "a", time.monotonic() + 0.05)


def test_a_secret_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(SECRET + b"\n")
    (tmp_path / "s").chmod(0o600)
    assert read_secret(tmp_path / "s") == SECRET


@pytest.mark.parametrize(
    ("content", "mode", "error"),
    [(SECRET, 0o640, "others may read"), (b"short", 0o600, "5 bytes"), (b"x" * 5000, 0o600, "must be 16 to 4096")],
)
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: bytes, mode: int, error: str) -> None:
    (tmp_path / "s").write_bytes(content)
    (tmp_path / "s").chmod(mode)
    with pytest.raises(OptionError, match=error):
        read_secret(tmp_path / "s")
    with pytest.raises(OptionError, match="cannot be read"):
        read_secret(tmp_path / "gone")
