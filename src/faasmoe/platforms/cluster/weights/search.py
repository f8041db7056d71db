"""Looks for a function's weights in files of this machine: by their names first, by digests then."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.weights.digest_book import DigestBook, OpenFile, Span
from faasmoe.platforms.cluster.weights.file_table import FileRow


class OtherContent(Exception):
    """A file is not the one that is wanted. The message says what is other."""


class WeightSearch:
    """Looks at a file's own path, which a shared file system may have, in `folders`, and in the hub's cache.

    A file counts if it has the size of the one that was deployed, and each piece that the function maps has its digest.
    Every piece is read and hashed once, not a sample: what a fine-tuned checkpoint shares with its base may be
    anything, and so may what a broken disk has left.
    """

    def __init__(self, folders: Sequence[Path], book: DigestBook) -> None:
        self._folders = [*folders, hub_cache()]
        self._book = book

    def find(self, content: FunctionContent, read: bool) -> tuple[list[FileRow] | None, list[str]]:
        """Rows of files with the function's weights, or None, and what was wrong with files that have their names.

        With `read` pieces are hashed that have not been; without, a file that has such pieces does not count.
        """
        rows: list[FileRow] = []
        wrong: list[str] = []
        for number, file in enumerate(content.files):
            pieces = {(p.offset, p.length): digest for p, digest in content.pieces().items() if p.file == number}
            if (row := self._first(Path(file.path), file.size, pieces, read, wrong)) is None:
                return None, wrong
            rows.append(row)
        return rows, wrong

    def _first(
        self, path: Path, size: int, pieces: Mapping[Span, bytes], read: bool, wrong: list[str]
    ) -> FileRow | None:
        for candidate in self._candidates(path):
            try:
                if row := matching(self._book, candidate, size, pieces, read):
                    return row
            except OtherContent as error:
                wrong.append(f"{candidate} {error}")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                wrong.append(f"{candidate} cannot be read: {error.strerror}")
        return None

    def _candidates(self, path: Path) -> Iterator[Path]:
        """Paths to look at: that of the server, then in each folder the longest end of it that is there."""
        yield path
        parts = path.parts[1:]
        for folder in self._folders:
            for first in range(len(parts)):
                if os.path.lexists(there := folder.joinpath(*parts[first:])) and there != path:
                    yield there


def matching(book: DigestBook, file: Path, size: int, pieces: Mapping[Span, bytes], read: bool) -> FileRow | None:
    """The row of `file` if it has these pieces; None if that is not known and must not be `read`.

    Raises `OtherContent`, or `OSError` if there is no such file.
    """
    row, known = book.known(file, pieces)
    if row.size != size:
        raise OtherContent(f"has {row.size} bytes, and not {size}: it is another checkpoint of the same name")
    _compare(known, pieces)
    left = [span for span in pieces if span not in known]
    if not left:
        return row
    if not read:
        return None
    made = {}
    with OpenFile(file) as opened:
        try:
            for span in left:
                made[span] = opened.digest(span)
                _compare({span: made[span]}, pieces)
        finally:
            same = opened.before == row == opened.row() and book.note(file, row, made)
    if not same:
        raise OtherContent("was changed while it was read")
    return row


def _compare(found: Mapping[Span, bytes], wanted: Mapping[Span, bytes]) -> None:
    for span, digest in found.items():
        if digest != wanted[span]:
            raise OtherContent(
                f"has other bytes at {span[0]}: it is another checkpoint of the same name, or damaged"
            )


def hub_cache() -> Path:
    """The folder of the Hugging Face hub's cache, which need not exist (huggingface_hub, `constants.HF_HUB_CACHE`)."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")))
