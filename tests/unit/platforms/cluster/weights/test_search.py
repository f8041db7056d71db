"""Weights in files of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from faasmoe.platforms.cluster.protocol.content import PIECE, FunctionContent
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.cluster.weights.file_table import row_of
from faasmoe.platforms.cluster.weights.search import WeightSearch
from tests.unit.platforms.cluster.weights.servers import content_of, function, weights


@pytest.fixture
def content(tmp_path: Path) -> FunctionContent:
    return content_of(function(weights(tmp_path / "models" / "m")), DigestBook(tmp_path / "server"))


@pytest.fixture
def book(tmp_path: Path) -> DigestBook:
    """That of a node, which has read nothing yet."""
    return DigestBook(tmp_path / "node")


def test_the_same_path_is_read_once(content: FunctionContent, tmp_path: Path, book: DigestBook) -> None:
    search, file = WeightSearch([], book), tmp_path / "models" / "m" / "w.bin"
    assert search.find(content, read=False) == (None, [])
    rows = [row_of(file, file.stat())]
    assert search.find(content, read=True) == (rows, [])
    assert WeightSearch([], DigestBook(tmp_path / "node")).find(content, read=False) == (rows, [])


@pytest.mark.parametrize("there", ["models/m/w.bin", "m/w.bin", "w.bin"])
def test_a_folder_may_hold_any_end_of_the_path(
    content: FunctionContent, tmp_path: Path, book: DigestBook, there: str
) -> None:
    (tmp_path / "own" / there).parent.mkdir(parents=True)
    (tmp_path / "models").rename(tmp_path / "server's")
    shutil.copy(tmp_path / "server's" / "m" / "w.bin", tmp_path / "own" / there)
    rows, wrong = WeightSearch([tmp_path / "own"], book).find(content, read=True)
    assert rows is not None
    assert ([row.path for row in rows], wrong) == ([str(tmp_path / "own" / there)], [])


def test_the_cache_of_the_hub_is_looked_at(
    content: FunctionContent, tmp_path: Path, book: DigestBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "models").rename(tmp_path / "hf" / "hub")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows, _ = WeightSearch([], book).find(content, read=True)
    assert rows is not None
    assert rows[0].path == str(tmp_path / "hf" / "hub" / "m" / "w.bin")


@pytest.mark.parametrize(
    ("seed", "size", "error"),
    [
        (1, 3 * PIECE, "has other bytes at 100: it is another checkpoint of the same name, or damaged"),
        (0, 2 * PIECE, f"has {2 * PIECE} bytes, and not {3 * PIECE}: it is another checkpoint of the same name"),
    ],
)
def test_another_checkpoint_of_the_same_name_does_not_count(
    content: FunctionContent, tmp_path: Path, book: DigestBook, seed: int, size: int, error: str
) -> None:
    file = weights(tmp_path / "models" / "m", seed, size)
    for _ in range(2):  # the second time by what was noted
        assert WeightSearch([], book).find(content, read=True) == (None, [f"{file} {error}"])


def test_one_wrong_byte_is_found_wherever_it_is(
    content: FunctionContent, tmp_path: Path, book: DigestBook
) -> None:
    file = tmp_path / "models" / "m" / "w.bin"
    with file.open("r+b") as stream:
        stream.seek(5000 + PIECE + 999)
        stream.write(bytes([file.read_bytes()[5000 + PIECE + 999] ^ 1]))
    rows, wrong = WeightSearch([], book).find(content, read=True)
    assert rows is None
    assert f"has other bytes at {5000 + PIECE}" in wrong[0]
