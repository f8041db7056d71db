"""Contents of functions, where they are deployed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointChanged, OptionError
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.protocol.content import PIECE, ContentFile
from faasmoe.platforms.cluster.weights.contents import MOST_ARTIFACT, contents_of
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from tests.unit.platforms.cluster.weights.servers import LENGTH, content_of, function, weights


@pytest.fixture
def book(tmp_path: Path) -> DigestBook:
    return DigestBook(tmp_path / "digests")


def test_every_piece_of_the_ranges_is_hashed(tmp_path: Path, book: DigestBook) -> None:
    file = weights(tmp_path)
    content = content_of(function(file), book)
    data = file.read_bytes()
    assert content.files == (ContentFile(str(file), 3 * PIECE),)
    assert [(p.offset, p.length) for p in content.pieces()] == [(100, 50), (5000, PIECE), (5000 + PIECE, 1000)]
    for piece, digest in content.pieces().items():
        assert digest == hashlib.sha256(data[piece.offset : piece.offset + piece.length]).digest()
    assert content.nbytes == 50 + LENGTH
    assert content.artifact == b'{"its": "content"}\n'
    assert content.whole()


def test_equal_bytes_have_equal_digests_wherever_they_lie(tmp_path: Path, book: DigestBook) -> None:
    one, same = weights(tmp_path / "a"), weights(tmp_path / "b")
    other, shifted = weights(tmp_path / "c", seed=1), function(one, "g", shift=1)
    content = content_of(function(one), book)
    assert content_of(function(same), book).digest == content.digest
    assert content_of(function(other), book).digest != content.digest
    assert content_of(shifted, book).digest != content.digest
    spec = function(same)
    spec.artifact.write_bytes(b"another\n" + spec.artifact.read_bytes())
    changed = content_of(spec, book)
    assert (changed.digest == content.digest, changed.weights_digest == content.weights_digest) == (False, True)


def test_what_was_hashed_is_not_read_again(
    tmp_path: Path, book: DigestBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = function(weights(tmp_path))
    content = content_of(spec, book)
    monkeypatch.setattr("faasmoe.platforms.cluster.weights.digest_book.OpenFile.digest", None)
    assert content_of(spec, DigestBook(tmp_path / "digests")) == content


def test_a_file_that_was_changed_since_is_refused(tmp_path: Path, book: DigestBook) -> None:
    spec = function(weights(tmp_path))
    os.utime(tmp_path / "w.bin", ns=(1, 1))
    with pytest.raises(CheckpointChanged, match=r"^w\.bin was changed while it was deployed"):
        contents_of([spec], book)


def test_functions_without_weights(tmp_path: Path, book: DigestBook) -> None:
    (tmp_path / "artifact").write_bytes(b"A:")
    os.mkfifo(tmp_path / "pipe")
    names = ("artifact", "pipe", "gone")
    contents = contents_of([FunctionSpec("f", "m:a", tmp_path / name) for name in names], book)
    assert [content and content.artifact for content in contents] == [b"A:", None, None]


@pytest.mark.parametrize(
    ("artifact", "error"),
    [
        (b"A:", "its last line is no file table"),
        (b'A:\n[["/other", 1, 2, 3, 4]]\n', "does not list /gone, which it maps"),
        (b'A:\n[["/gone", 1, 2, 3, 4]]\n', "/gone cannot be read"),
        (bytes(MOST_ARTIFACT + 1), "has more than"),
    ],
)
def test_artifacts_that_do_not_name_their_files_are_refused(
    tmp_path: Path, book: DigestBook, artifact: bytes, error: str
) -> None:
    (tmp_path / "artifact").write_bytes(artifact)
    files = (FileRange(Path("/gone"), 0, 10),)
    with pytest.raises(OptionError, match=error):
        contents_of([FunctionSpec("f", "m:a", tmp_path / "artifact", files=files)], book)
