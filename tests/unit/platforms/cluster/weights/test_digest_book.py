"""Digests of pieces of files, which hold while the file is in the same state."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from faasmoe.platforms.cluster.weights.digest_book import DigestBook, FileChanged, OpenFile
from faasmoe.platforms.cluster.weights.file_table import row_of

SPANS = [(0, 1000), (1000, 500_000), (400_000, 7)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "w").write_bytes(os.urandom(600_000))
    return tmp_path / "w"


@pytest.fixture
def book(tmp_path: Path) -> DigestBook:
    return DigestBook(tmp_path / "book")


@pytest.mark.parametrize("threads", [1, 4])
def test_digests_are_those_of_the_bytes_and_are_kept(
    file: Path, book: DigestBook, tmp_path: Path, threads: int
) -> None:
    advanced: list[int] = []
    row, made = book.digests(file, SPANS, advanced.append, threads)
    data = file.read_bytes()
    assert made == {(at, n): hashlib.sha256(data[at : at + n]).digest() for at, n in SPANS}
    assert (row, sum(advanced)) == (row_of(file, file.stat()), 501_007)
    assert DigestBook(tmp_path / "book").known(file, [*SPANS, (5, 5)]) == (row, made)
    assert book.known(file, [(0, 999)]) == (row, {})  # another piece at the same place


def test_a_file_in_another_state_has_no_digests(file: Path, book: DigestBook) -> None:
    book.digests(file, SPANS)
    os.utime(file, ns=(1, 1))
    assert book.known(file, SPANS)[1] == {}
    book.digests(file, SPANS[:1])
    assert set(book.known(file, SPANS)[1]) == {SPANS[0]}


def test_a_file_that_changes_while_it_is_read_is_noticed(
    file: Path, book: DigestBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = OpenFile.digest

    def touching(self: OpenFile, span: tuple[int, int]) -> bytes:
        os.utime(file, ns=(span[0], span[0]))
        return digest(self, span)

    monkeypatch.setattr(OpenFile, "digest", touching)
    with pytest.raises(FileChanged, match="it was changed while it was read"):
        book.digests(file, SPANS)
    assert book.known(file, SPANS)[1] == {}


def test_what_is_gone_or_changed_is_swept(file: Path, book: DigestBook, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(1000))
    for each in (file, other):
        book.digests(each, SPANS[:1])
    (tmp_path / "book" / "garbage").write_bytes(b"?")
    os.utime(other, ns=(1, 1))
    book.sweep()
    assert len(list((tmp_path / "book").iterdir())) == 1
    assert set(book.known(file, SPANS)[1]) == {SPANS[0]}


def test_a_book_that_cannot_be_written_is_an_empty_one(file: Path, tmp_path: Path) -> None:
    (tmp_path / "book").write_text("a file")
    book = DigestBook(tmp_path / "book")
    _, made = book.digests(file, SPANS)
    assert len(made) == len(SPANS)
    assert book.known(file, SPANS)[1] == {}


def test_what_is_no_file_or_too_short_is_an_error(file: Path, book: DigestBook, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for wrong, error in (("pipe", "no regular file"), (".", "no regular file"), ("gone", "No such file")):
        with pytest.raises(OSError, match=error):
            book.digests(tmp_path / wrong, SPANS)
    with pytest.raises(OSError, match="it ends at byte 600000"):
        book.digests(file, [(599_999, 2)])
