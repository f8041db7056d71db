"""Weights that are fetched from the server: whole, in the middle of a fetch, corrupt, and changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.client.weights import supply
from faasmoe.platforms.cluster.protocol.content import PIECE, FunctionContent, WeightPiece
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry
from faasmoe.platforms.cluster.weights import draft
from faasmoe.platforms.cluster.weights.cache import WeightsCache
from faasmoe.platforms.cluster.weights.digest_book import DigestBook, OpenFile
from faasmoe.platforms.cluster.weights.draft import SparseFile
from faasmoe.platforms.cluster.weights.file_table import joined, row_of
from faasmoe.platforms.cluster.weights.finder import WeightsFinder
from faasmoe.platforms.cluster.weights.piece_lane import AT_ONCE, PieceLane, PiecesRefused
from faasmoe.platforms.cluster.weights.search import WeightSearch
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.machine import cores
from tests.unit.platforms.cluster.weights.servers import LENGTH, content_of, function, serving, weights


@pytest.fixture
def spec(tmp_path: Path) -> FunctionSpec:
    return function(weights(tmp_path / "models"))


@pytest.fixture
def content(spec: FunctionSpec, tmp_path: Path) -> FunctionContent:
    return content_of(spec, DigestBook(tmp_path / "server"))


@pytest.fixture
def entries(spec: FunctionSpec, content: FunctionContent) -> dict[str, CatalogueEntry]:
    return {"f": CatalogueEntry("f", 1, spec, content, ("a",))}


@pytest.fixture
def lane(entries: dict[str, CatalogueEntry]) -> Iterator[PieceLane]:
    with serving(entries) as connection:
        yield PieceLane(connection)


@pytest.fixture
def finder(tmp_path: Path) -> WeightsFinder:
    book = DigestBook(tmp_path / "node")
    return WeightsFinder(WeightSearch([], book), WeightsCache(tmp_path / "cache"), book)


def test_a_node_has_the_ranges_at_their_offsets_and_nothing_else(
    finder: WeightsFinder, content: FunctionContent, lane: PieceLane, tmp_path: Path
) -> None:
    found = finder.fetch("f", content, lane)
    assert found.entry is not None
    with found.entry:
        (row,) = found.rows
        here, there = Path(row.path).read_bytes(), (tmp_path / "models" / "w.bin").read_bytes()
        assert row.size == len(here) == len(there)
        assert here[100:150] == there[100:150]
        assert here[5000 : 5000 + LENGTH] == there[5000 : 5000 + LENGTH]
        assert not any(here[5000 + LENGTH :])
        assert os.stat(row.path).st_blocks * 512 < 2 * PIECE
        assert content.nbytes <= lane.received <= 1.001 * content.nbytes


def test_pieces_are_written_while_others_come(
    finder: WeightsFinder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, pieces = weights(tmp_path / "large", size=(AT_ONCE + 3) * PIECE), AT_ONCE + 3
    (file.parent / "g.json").write_bytes(joined(b'{"its": "content"}\n', [row_of(file, file.stat())]))
    spec = FunctionSpec("g", "m:a", file.parent / "g.json", files=(FileRange(file, 0, pieces * PIECE),))
    content = content_of(spec, DigestBook(tmp_path / "server"))
    write, first = SparseFile.write, threading.Event()
    offsets = []

    def late(self: SparseFile, piece: WeightPiece, data: memoryview) -> None:
        if piece.offset:
            first.set()
        elif cores() > 1:
            assert first.wait(10)  # for a later piece to be written
        offsets.append(piece.offset)
        write(self, piece, data)

    monkeypatch.setattr(SparseFile, "write", late)
    with serving({"g": CatalogueEntry("g", 1, spec, content, ("a",))}) as connection:
        found = finder.fetch("g", content, PieceLane(connection))
    assert found.entry is not None
    with found.entry:
        assert Path(found.rows[0].path).read_bytes() == file.read_bytes()
    assert sorted(offsets) == [number * PIECE for number in range(pieces)]


def test_what_was_fetched_is_known_from_then_on_without_reading(
    finder: WeightsFinder, content: FunctionContent, lane: PieceLane, tmp_path: Path
) -> None:
    assert finder.known(content) is None
    found = finder.fetch("f", content, lane)
    assert found.entry is not None
    found.entry.close()
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    known = finder.known(content)
    assert known is not None
    assert known.entry is not None
    assert known.rows == found.rows
    with Path(known.rows[0].path).open("r+b") as stream:  # somebody writes to it
        stream.seek(110)
        stream.write(b"?" * 8)
    known.entry.close()
    assert finder.known(content) is None


def test_a_fetch_that_ended_goes_on_where_it_was(
    finder: WeightsFinder,
    content: FunctionContent,
    entries: dict[str, CatalogueEntry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, left = SparseFile.write, [2]

    def full(self: SparseFile, piece: object, data: memoryview) -> None:
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        write(self, piece, data)

    monkeypatch.setattr(SparseFile, "write", full)
    monkeypatch.setattr(draft, "AT_ONCE", 1)
    with serving(entries) as connection:
        lane = PieceLane(connection)
        with pytest.raises(OSError, match="No space left"):
            finder.fetch("f", content, lane)
        with pytest.raises(Lost):  # pieces were under way, so the connection cannot be used any more
            list(lane.fetch("f", content, [0]))
    with pytest.raises(Lost, match="no server is connected"):
        finder.fetch("f", content, None)
    left[0] = 9
    with serving(entries) as connection:
        lane = PieceLane(connection)
        finder.fetch("f", content, lane)
        assert lane.received < 2000  # the last piece of 1000 bytes alone


def test_a_corrupt_piece_is_fetched_again(
    finder: WeightsFinder, content: FunctionContent, lane: PieceLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, corrupt = OpenFile.read, [5000]

    def damaged(self: OpenFile, offset: int, room: memoryview) -> None:
        read(self, offset, room)
        if not isinstance(self, SparseFile) and offset in corrupt:
            corrupt.remove(offset)
            room[7] ^= 1

    monkeypatch.setattr(OpenFile, "read", damaged)
    found = finder.fetch("f", content, lane)
    assert found.entry is not None
    found.entry.close()
    assert corrupt == []
    assert content.nbytes + PIECE <= lane.received <= content.nbytes + 1.001 * PIECE


def test_a_file_that_was_changed_at_the_server_is_refused(
    finder: WeightsFinder, content: FunctionContent, lane: PieceLane, tmp_path: Path
) -> None:
    weights(tmp_path / "models", seed=1)
    error = r"3 pieces came twice with other bytes than were deployed, the first at byte 100 of .*/models/w\.bin"
    with pytest.raises(PiecesRefused, match=error):
        finder.fetch("f", content, lane)
    weights(tmp_path / "models")
    found = finder.fetch("f", content, lane)  # the connection can still be used
    assert found.entry is not None
    found.entry.close()


def test_what_the_server_cannot_give_is_told(
    finder: WeightsFinder,
    content: FunctionContent,
    lane: PieceLane,
    entries: dict[str, CatalogueEntry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "models" / "w.bin").unlink()
    with pytest.raises(PiecesRefused, match=r"on the server's machine: .*w\.bin cannot be read: No such file"):
        finder.fetch("f", content, lane)
    del entries["f"]
    monkeypatch.setattr(supply, "_LEARN_SECONDS", 0.1)
    with pytest.raises(PiecesRefused, match="was removed, or deployed with other contents, meanwhile"):
        finder.fetch("f", content, lane)


def test_a_piece_that_the_server_has_lost_comes_from_a_node_that_has_it(
    finder: WeightsFinder, content: FunctionContent, entries: dict[str, CatalogueEntry], tmp_path: Path
) -> None:
    data = (tmp_path / "models" / "w.bin").read_bytes()
    pieces, told = list(content.pieces()), list[int]()

    def elsewhere(function: str, its: FunctionContent, number: int, room: memoryview) -> bool:
        assert (function, its) == ("f", content)
        told.append(number)
        room[:] = data[pieces[number].offset :][: room.nbytes]
        return True

    weights(tmp_path / "models", seed=1)
    with serving(entries, elsewhere) as connection:
        found = finder.fetch("f", content, PieceLane(connection))
        assert found.entry is not None
        found.entry.close()
    assert told == [0, 1, 2]
