"""Which content the head finds for a node that asks for pieces, and how its threads end."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.client.weights import supply
from faasmoe.platforms.cluster.client.weights.supply import WeightSupply, content_of
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD
from faasmoe.platforms.cluster.protocol.messages import AskPieces
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from tests import threads
from tests.unit.platforms.cluster.client.members import Members
from tests.unit.platforms.cluster.weights.servers import content_of as contents
from tests.unit.platforms.cluster.weights.servers import function, weights

SPEC = FunctionSpec("f", "m:a", Path("/a"))
CONTENT = FunctionContent(b"its artifact", ())


def deploy(members: Members) -> None:
    members.enter(lambda catalogue: catalogue.deployed([(SPEC, CONTENT)]))


def test_what_is_deployed_is_found_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "_LEARN_SECONDS", 0.0)
    members = Members()
    deploy(members)
    assert content_of(members, {}, "f", CONTENT.digest) == CONTENT
    assert content_of(members, {}, "f", "another") is None
    assert content_of(members, {}, "g", CONTENT.digest) is None


def test_what_another_client_has_just_deployed_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "_LEARN_SECONDS", 60.0)
    members = Members()
    threading.Timer(0.1, lambda: deploy(members)).start()
    assert content_of(members, {}, "f", CONTENT.digest) == CONTENT


class Link:
    """To a node that asks for nothing, unless the test does."""

    name, epoch = "a", 1

    def __init__(self) -> None:
        self.opened, self.dropped = threading.Event(), threading.Event()

    def open(self, lane: str) -> Connection:
        assert lane == "weights"
        ours, theirs = socket.socketpair()
        self.node = Connection(theirs, MOST_HEAD)
        self.opened.set()
        return Connection(ours, MOST_HEAD)

    def drop(self, connection: Connection) -> None:
        connection.close()
        self.dropped.set()


def test_its_end_waits_for_its_threads() -> None:
    link = Link()
    with threads.none_left(0.0), WeightSupply(SimpleNamespace(links=[link]), {}):  # type: ignore[arg-type]
        assert link.opened.wait(10)
    assert link.dropped.is_set()
    link.node.close()


def test_its_end_does_not_wait_for_a_file_that_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "_END_SECONDS", 0.1)
    spec = function(weights(tmp_path))
    content = contents(spec, DigestBook(tmp_path / "digests"))
    link, reads, comes = Link(), threading.Event(), threading.Event()

    def read(*_: object) -> None:
        reads.set()
        comes.wait(60)

    monkeypatch.setattr(supply, "_read", read)
    membership = Members()
    membership.enter(lambda catalogue: catalogue.deployed([(spec, content)]))
    membership.links = (link,)  # type: ignore[assignment]
    with threads.none_left():
        with WeightSupply(membership, {}):
            assert link.opened.wait(10)
            link.node.send(AskPieces(function="f", digest=content.digest, pieces=(0,)), None)
            assert reads.wait(10)
        assert not link.dropped.is_set()
        assert all(thread.daemon for thread in threads.running())  # none keeps the process from ending
        comes.set()
        link.node.close()
