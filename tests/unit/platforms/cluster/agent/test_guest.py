"""How an agent meets clients, over pairs of sockets."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faasmoe.platforms.cluster.agent import guest
from faasmoe.platforms.cluster.agent.guest import meet
from faasmoe.platforms.cluster.protocol import handshake, tls
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import Hello
from tests import authorities


def soon() -> float:
    return time.monotonic() + 10


def test_a_servers_process_is_a_guest(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    server = authorities.server(tmp_path)
    with ThreadPoolExecutor(1) as other:
        met = other.submit(meet, theirs, authorities.identity(tmp_path), "a", "10.0.0.2")
        connection = handshake.secure(ours, server, soon(), serving=False)
        connection.send(Hello(lane="orders", pool="p", head=False), soon())
        found = met.result(10)
        assert found is not None
        assert (found.peer.role, found.hello.lane, found.hello.pool) == ("server", "orders", "p")
        found.connection.close()
        connection.close()


def test_nobody_else_is_and_both_sides_say_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    node = authorities.identity(tmp_path, name="b")
    with ThreadPoolExecutor(1) as other:
        met = other.submit(meet, theirs, authorities.identity(tmp_path, name="a"), "a", "10.0.0.2")
        connection = handshake.secure(ours, node, soon(), serving=False)
        with pytest.raises(LinkRefused, match="needs the certificate of a server, and has shown that of node b"):
            handshake.greet(connection, Credentials(identity=node), "orders", soon())
        assert met.result(10) is None
        connection.close()
    assert "node a: a connection from 10.0.0.2 was refused: it needs the certificate of a server" in caplog.text


def test_who_says_nothing_or_garbage_is_let_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "HELLO_SECONDS", 0.05)
    monkeypatch.setattr(tls, "_LINGER", 0.05)
    for said, cause in ((b"", "it does not answer"), (bytes(500), "TLS")):
        ours, theirs = socket.socketpair()
        with ours:
            ours.sendall(said)
            assert meet(theirs, authorities.identity(tmp_path), "a", "10.0.0.2") is None
            while ours.recv(1000):
                pass
        assert cause in caplog.text
        caplog.clear()
