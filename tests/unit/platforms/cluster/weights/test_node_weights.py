"""The weights of a node: what it takes at once, what it fetches, and what it tells of what it lacks."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import PIECE, FunctionContent
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry, WeightsReport
from faasmoe.platforms.cluster.weights import file_table
from faasmoe.platforms.cluster.weights.cache import WeightsCache
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.cluster.weights.file_table import FileRow
from faasmoe.platforms.cluster.weights.finder import WeightsFinder
from faasmoe.platforms.cluster.weights.node_weights import NodeWeights
from faasmoe.platforms.cluster.weights.search import WeightSearch
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.platforms.cluster.weights.servers import LENGTH, content_of, function, serving, weights
from tests.waiting import wait_until


class Nowhere(WeightSearch):
    """A machine that has no such files: in these tests it is also the server's, which has them."""

    def find(self, content: FunctionContent, read: bool) -> tuple[list[FileRow] | None, list[str]]:
        return None, []


class Node:
    """The weights of node a, and what its platform was told."""

    def __init__(self, folder: Path, search: type[WeightSearch] = Nowhere, cap: int | None = None) -> None:
        book, self.folder = DigestBook(folder / "node"), folder
        self.told: list[tuple[str, str]] = []
        finder = WeightsFinder(search([], book), WeightsCache(folder / "cache", cap), book)
        self.error_of: dict[str, Exception] = {}  # of the platform, by what it is told
        self.weights = NodeWeights(
            "a", folder / "artifacts", finder, self._telling("placed"), self._telling("gone")
        )

    def _telling(self, what: str) -> Callable[[str], None]:
        def tell(name: str) -> None:
            if what in self.error_of:
                raise self.error_of[what]
            self.told.append((what, name))

        return tell

    def enter(self, entry: CatalogueEntry) -> FunctionSpec:
        assert entry.spec is not None
        return self.weights.enter(entry, entry.spec)

    def error(self, name: str) -> str:
        """Why calls of a function are refused."""
        failure = self.weights.lacks(["unknown", name])
        return failure.error if failure else ""


class Server:
    """Functions of one file, and a connection on which a node gets their weights."""

    def __init__(self, folder: Path) -> None:
        self.file = weights(folder / "models")
        self._book = DigestBook(folder / "server")
        self.entries: dict[str, CatalogueEntry] = {}

    def deploy(self, name: str, *hosts: str, shift: int = 0) -> CatalogueEntry:
        spec = function(self.file, name, shift)
        content = content_of(spec, self._book)
        self.entries[name] = CatalogueEntry(name, len(self.entries) + 1, spec, content, hosts)
        return self.entries[name]

    @contextmanager
    def connected(self, node: Node) -> Iterator[None]:
        def run(connection: Connection) -> None:
            with suppress(Lost):
                node.weights.serve(connection)

        with serving(self.entries) as connection:
            thread = threading.Thread(target=run, args=(connection,))
            thread.start()
            try:
                yield
            finally:
                connection.cut()
                thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    with made.weights:
        yield made


def test_weights_that_are_known_to_be_here_are_placed_at_once(server: Server, tmp_path: Path) -> None:
    made = Node(tmp_path, WeightSearch)
    with made.weights:
        entry = server.deploy("f", "a")
        made.weights.enter(entry, entry.spec)
        made.weights.prepare(["f"], 10)  # it is read and hashed, as this node's book is another one
        made.weights.forget(["f"])
        again = made.enter(entry)
        assert made.error("f") == ""
        assert made.weights.report() == WeightsReport()
    assert entry.spec is not None
    assert again.files == entry.spec.files
    assert again.artifact != entry.spec.artifact


def test_a_host_fetches_and_its_artifact_says_where_the_weights_are(server: Server, node: Node) -> None:
    before = node.enter(server.deploy("f", "a"))
    assert (before.files, node.error("f")) == ((), "under way")
    with server.connected(node):
        assert wait_until(lambda: node.error("f") == "")
        report = node.weights.report()
    spec = node.weights.spec("f")
    assert spec is not None
    content, (row,) = file_table.split(spec.artifact.read_bytes())
    assert content == b'{"its": "content"}\n'
    assert [(str(part.file), part.offset, part.length) for part in spec.files] == [
        (row.path, 100, 50),
        (row.path, 5000, LENGTH),
    ]
    assert row.path.startswith(str(node.folder / "cache"))
    assert node.told == [("placed", "f")]
    assert (report.lacking, report.cause) == (0, "")
    assert LENGTH + 50 < report.fetched == node.weights.report().fetched < 1.001 * (LENGTH + 50)


def test_a_node_that_is_started_again_fetches_nothing(server: Server, node: Node, tmp_path: Path) -> None:
    entry = server.deploy("f", "a")
    node.enter(entry)
    with server.connected(node):
        assert wait_until(lambda: node.error("f") == "")
    node.weights.close()
    again = Node(tmp_path)
    with again.weights:
        spec = again.enter(entry)
        assert again.error("f") == ""
        assert again.weights.report().fetched == 0
        assert all(part.file.exists() for part in spec.files)


def test_what_is_hosted_elsewhere_is_fetched_only_if_it_is_asked_for(server: Server, node: Node) -> None:
    node.enter(server.deploy("f", "b"))
    with server.connected(node):
        assert node.error("f") == "elsewhere"
        node.weights.prepare(["f"], 10)
        assert node.error("f") == ""
    assert node.weights.report().lacking == 0


def test_without_a_server_weights_are_waited_for(server: Server, node: Node) -> None:
    node.enter(server.deploy("f", "a"))
    with pytest.raises(PlatformError, match=r"function f: its weights are on their way \(node a\)"):
        node.weights.prepare(["f"], 0.01)
    with server.connected(node):
        node.weights.prepare(["f"], 10)


def test_a_failure_names_the_file_and_is_tried_again_when_asked_for(server: Server, node: Node) -> None:
    node.enter(server.deploy("f", "a"))
    server.file.rename(server.file.with_suffix(".gone"))
    error = rf"its weights \({server.file}\) cannot be had: on the server's machine: {server.file} cannot be read"
    with server.connected(node):
        with pytest.raises(PlatformError, match=error):
            node.weights.prepare(["f"], 10)
        assert node.error("f") == "failed"
        assert "No such file" in node.weights.report().cause
        server.file.with_suffix(".gone").rename(server.file)
        node.weights.prepare(["f"], 10)
    assert node.weights.report() == WeightsReport(0, node.weights.report().fetched)


def test_a_disk_that_is_full_in_the_middle_of_a_fetch_is_named(
    server: Server, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, room = os.pwrite, [1]  # pieces

    def write(fd: int, data: memoryview, at: int) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room.clear()
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", write)
    node.enter(server.deploy("f", "a"))
    where = rf"{node.folder}/cache/\w+/0\.weights"
    error = (
        rf"function f: its weights \({server.file}\) cannot be had: No space left on device \({where}\) \(node a\)"
    )
    with server.connected(node), pytest.raises(PlatformError, match=error):
        node.weights.prepare(["f"], 10)
    assert node.error("f") == "failed"
    monkeypatch.setattr(os, "pwrite", pwrite)
    with server.connected(node):
        node.weights.prepare(["f"], 10)
    assert node.error("f") == ""


def test_another_content_is_another_function(server: Server, node: Node) -> None:
    node.enter(server.deploy("f", "a"))
    with server.connected(node):
        node.weights.prepare(["f"], 10)
        first = node.weights.spec("f")
        node.enter(server.deploy("f", "a", shift=1))
        assert node.error("f") == "under way"
        node.weights.prepare(["f"], 10)
    second = node.weights.spec("f")
    assert first is not None
    assert second is not None
    assert first.artifact != second.artifact
    assert not first.artifact.exists()


def test_weights_of_functions_that_have_moved_away_make_room(server: Server, tmp_path: Path) -> None:
    node = Node(tmp_path, cap=int(2.5 * PIECE))
    with node.weights, server.connected(node):
        for name, shift in (("f", 0), ("g", 1)):
            node.enter(server.deploy(name, "a", shift=shift))
        node.weights.prepare(["f", "g"], 10)
        node.enter(server.deploy("h", "a", shift=2))
        with pytest.raises(PlatformError, match=r"--weights-cache is 10\.5 MB"):
            node.weights.prepare(["h"], 10)
        assert node.error("f") == node.error("g") == ""
        node.enter(CatalogueEntry("f", 9, server.entries["f"].spec, server.entries["f"].content, ("b",)))
        assert node.error("f") == ""  # it may be called as long as there is room
        node.weights.prepare(["h"], 10)
        assert (node.error("f"), node.error("g"), node.error("h")) == ("elsewhere", "", "")
        assert node.told[-2:] == [("gone", "f"), ("placed", "h")]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(PlatformError("local", "f", "the daemon is gone"), "the daemon is gone"), (KeyError("f"), "KeyError")],
)
def test_a_platform_that_fails_is_told_of_and_asked_again(
    server: Server, node: Node, fault: Exception, cause: str
) -> None:
    node.error_of["placed"] = fault
    node.enter(server.deploy("f", "a"))
    with server.connected(node):
        with pytest.raises(PlatformError, match=cause):
            node.weights.prepare(["f"], 10)
        assert cause in node.weights.report().cause
        del node.error_of["placed"]
        node.weights.prepare(["f"], 10)
    assert node.error("f") == ""


def test_weights_that_cannot_be_let_go_stay(server: Server, tmp_path: Path) -> None:
    node = Node(tmp_path, cap=int(1.5 * PIECE))
    with node.weights, server.connected(node):
        node.enter(server.deploy("f", "a"))
        node.weights.prepare(["f"], 10)
        node.enter(CatalogueEntry("f", 9, server.entries["f"].spec, server.entries["f"].content, ("b",)))
        node.enter(server.deploy("g", "a", shift=1))
        node.error_of["gone"] = PlatformError("local", "f", "the daemon is gone")
        with pytest.raises(PlatformError, match="the daemon is gone"):
            node.weights.prepare(["g"], 10)
        assert node.error("f") == ""
        del node.error_of["gone"]
        node.weights.prepare(["g"], 10)
        assert (node.error("f"), node.error("g")) == ("elsewhere", "")


def test_functions_without_weights_are_placed_at_once(node: Node) -> None:
    spec = FunctionSpec("f", "m:a", Path("/nowhere"))
    assert node.weights.enter(CatalogueEntry("f", 1, spec, None, ("a",)), spec) == spec
    there = node.enter(CatalogueEntry("g", 1, spec, FunctionContent(b"A:"), ("b",)))
    assert there.artifact.read_bytes() == b"A:"
    assert node.error("f") == node.error("g") == ""
