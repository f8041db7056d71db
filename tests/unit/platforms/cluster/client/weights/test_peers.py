"""Pieces of weights from nodes that have them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from faasmoe.platforms.cluster.client.weights.peers import WeightPeers
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD, Outgoing
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry, ReadPiece
from faasmoe.platforms.cluster.weights import own_pieces
from faasmoe.platforms.cluster.weights.cache import WeightsCache
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.cluster.weights.finder import WeightsFinder
from faasmoe.platforms.cluster.weights.node_weights import NodeWeights
from faasmoe.platforms.cluster.weights.search import WeightSearch
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.platforms.cluster.weights.servers import content_of, function, weights


class Link:
    """To a node that is there if `epoch` is not 0."""

    def __init__(self, name: str, epoch: int = 1) -> None:
        self.name, self.epoch = name, epoch

    def open(self, lane: str) -> Connection:
        raise NotImplementedError

    def drop(self, connection: Connection) -> None:
        connection.close()


@pytest.fixture
def content(tmp_path: Path) -> FunctionContent:
    return content_of(function(weights(tmp_path)), DigestBook(tmp_path / "digests"))


@pytest.fixture
def holder(tmp_path: Path, content: FunctionContent) -> Iterator[NodeWeights]:
    """A node that has the function, in the file of the test."""
    book = DigestBook(tmp_path / "digests")
    finder = WeightsFinder(WeightSearch([], book), WeightsCache(tmp_path / "cache"), book)
    with NodeWeights("b", tmp_path / "artifacts", finder, print, print) as holder:
        spec = function(tmp_path / "w.bin")
        holder.enter(CatalogueEntry("f", 1, spec, content, ("b",)), spec)
        assert holder.placed("f", content.digest)
        yield holder


@pytest.fixture
def asked(holder: NodeWeights, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The nodes that were connected to: "lost" is gone, all others have what the holder has."""
    addresses: list[str] = []
    threads: list[threading.Thread] = []

    def run(sock: socket.socket) -> None:
        connection = Connection(sock, MOST_HEAD)
        with sock, suppress(Lost):
            order = connection.asked(None)
            assert isinstance(order, ReadPiece)
            connection.push(Outgoing(own_pieces.answer(holder, order)), None)

    def connect(link: Link, lane: str) -> Connection:
        assert lane == "orders"
        addresses.append(link.name)
        if link.name == "lost":
            raise Lost("it cannot be reached")
        ours, theirs = socket.socketpair()
        threads.append(threading.Thread(target=run, args=(theirs,)))
        threads[-1].start()
        return Connection(ours, MOST_HEAD)

    monkeypatch.setattr(Link, "open", connect)
    yield addresses
    for thread in threads:
        thread.join()


def links(*names: str) -> SimpleNamespace:
    """A membership of connected nodes, but for the last, which is not there."""
    return SimpleNamespace(links=[*map(Link, names), Link("gone", 0)])


def test_the_first_node_that_has_a_piece_gives_it(
    content: FunctionContent, asked: list[str], tmp_path: Path
) -> None:
    peers = WeightPeers(links("asks", "lost", "b", "c"), "asks")
    data = (tmp_path / "w.bin").read_bytes()
    for number, piece in enumerate(content.pieces()):
        room = memoryview(bytearray(piece.length))
        assert peers.read("f", content, number, room)
        assert room == data[piece.offset : piece.offset + piece.length]
    assert asked == ["lost", "b"] * 3


def test_wrong_bytes_and_what_nodes_do_not_have_are_no_help(
    content: FunctionContent, asked: list[str], holder: NodeWeights, tmp_path: Path
) -> None:
    peers = WeightPeers(links("b", "c"), "asks")
    room = memoryview(bytearray(50))
    with (tmp_path / "w.bin").open("r+b") as stream:
        stream.seek(120)
        stream.write(b"?" * 8)
    assert not peers.read("f", content, 0, room)
    (tmp_path / "w.bin").unlink()
    assert not peers.read("f", content, 0, room)
    holder.forget(["f"])
    assert not peers.read("f", content, 0, room)
    assert asked == ["b", "c"] * 3
