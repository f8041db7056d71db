"""Digests of pieces of files, each made once: they are kept, and hold while the file is in the same state.

A *page* of the book has the digests of one file, by device and inode. All processes of a user share the book, so what a
server has hashed, a node on the same machine need not hash again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import local
from typing import Self

import msgspec

from faasmoe.platforms.cluster.weights.file_table import FileRow, row_of
from faasmoe.util.closeable import Closeable
from faasmoe.util.folders.user_cache import user_cache

log = logging.getLogger(__name__)

_CHUNK = 256 << 10  # bytes that are read at a time: they stay in a core's cache until they are hashed
_LARGEST_PAGE = 256 << 20  # bytes

Span = tuple[int, int]  # offset and length of a piece, in bytes


class _Page(msgspec.Struct):
    row: FileRow
    digests: dict[int, tuple[int, bytes]] = {}  # offset to length and SHA-256


class FileChanged(OSError):
    """A file was changed while it was read."""


class DigestBook:
    """The book in `folder`, which need not exist. For all threads and processes; of two writers of a page one wins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[FileRow, _Page | None]] = {}  # pages, and the states in which they were read

    @classmethod
    def of_user(cls) -> Self:
        """The book in this user's cache."""
        return cls(user_cache() / "digests")

    def known(self, file: Path, spans: Iterable[Span]) -> tuple[FileRow, dict[Span, bytes]]:
        """The file as it is now, and those digests that need no reading. Raises `OSError` if there is no such file."""
        row = row_of(file, os.stat(file))
        page = self._page(row)
        found = {}
        for offset, length in spans:
            if (kept := page.digests.get(offset)) and kept[0] == length:
                found[offset, length] = kept[1]
        return row, found

    def digests(
        self, file: Path, spans: Iterable[Span], advance: Callable[[int], object] | None = None, threads: int = 1
    ) -> tuple[FileRow, dict[Span, bytes]]:
        """The file as it is now, and the digests of all `spans`, of which those that are not known are made.

        `advance` is called with bytes that are done. Raises `OSError`; `FileChanged` if the file changes meanwhile.
        """
        wanted = list(spans)
        with OpenFile(file) as opened:
            _, found = self.known(file, wanted)
            left = [span for span in wanted if span not in found]
            made = dict(zip(left, _each(opened.digest, left, threads, advance), strict=True))
            if opened.row() != opened.before or not self.note(file, opened.before, made):
                raise FileChanged(0, "it was changed while it was read")
            if advance:
                advance(sum(length for _, length in found))
            return opened.before, found | made

    def note(self, file: Path, row: FileRow, digests: Mapping[Span, bytes]) -> bool:
        """Keep digests of a file that is in the state of `row`. Returns whether it still is."""
        try:
            if row_of(file, os.stat(file)) != row:
                return False
        except OSError:
            return False
        if digests:
            new = {offset: (length, digest) for (offset, length), digest in digests.items()}
            self._write(_Page(row, self._page(row).digests | new))
        return True

    def sweep(self) -> None:
        """Forget files that are gone or have changed."""
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                page = _read(path)
                if page is None or not _current(page.row):
                    with suppress(OSError):
                        path.unlink()

    def _page(self, row: FileRow) -> _Page:
        """The page of a file in this state; an empty one if there is none."""
        path = self._path(row)
        try:
            state = row_of(path, os.stat(path))
            kept = self._read.get(path)
            if kept is None or kept[0] != state:
                kept = self._read[path] = state, _read(path)
        except OSError:
            return _Page(row, {})
        page = kept[1]
        return page if page and page.row[1:] == row[1:] else _Page(row, {})

    def _path(self, row: FileRow) -> Path:
        return self._folder / f"{row.device:x}-{row.inode:x}"

    def _write(self, page: _Page) -> None:
        """A book that cannot be written is one that is always empty: files are hashed again."""
        draft = self._folder / f"new-{secrets.token_hex(8)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.msgpack.encode(page))
            draft.replace(self._path(page.row))
        except OSError as error:
            log.warning("digests of %s cannot be kept in %s: %s", page.row.path, self._folder, error.strerror)
            with suppress(OSError):
                draft.unlink(missing_ok=True)


class OpenFile(Closeable):
    """A regular file that is read by pieces. `before` is its row when it was opened. Raises `OSError`."""

    def __init__(self, file: Path, mode: int = os.O_RDONLY) -> None:
        self.path = file
        self.fd = os.open(file, mode | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        self._own = local()
        try:
            self.before = self.row()
        except BaseException:
            self.close()
            raise

    def row(self) -> FileRow:
        """Its row now."""
        return row_of(self.path, os.fstat(self.fd))

    def read(self, offset: int, room: memoryview) -> None:
        """Fill `room`. Raises `OSError`, also if the file ends before."""
        while room.nbytes:
            got = os.preadv(self.fd, [room], offset)
            if not got:
                raise OSError(0, f"it ends at byte {offset}")
            room, offset = room[got:], offset + got

    def digest(self, span: Span) -> bytes:
        """SHA-256 of a piece. Raises `OSError`."""
        if (buffer := getattr(self._own, "buffer", None)) is None:
            buffer = self._own.buffer = memoryview(bytearray(_CHUNK))
        hashed, (offset, length) = hashlib.sha256(), span
        for at in range(0, length, _CHUNK):
            room = buffer[: min(_CHUNK, length - at)]
            self.read(offset + at, room)
            hashed.update(room)
        return hashed.digest()

    def close(self) -> None:
        """May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _each(
    digest: Callable[[Span], bytes], spans: list[Span], threads: int, advance: Callable[[int], object] | None
) -> list[bytes]:
    work = partial(_told, digest, advance) if advance else digest
    if threads < 2 or len(spans) < 2:
        return list(map(work, spans))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, spans))


def _told(digest: Callable[[Span], bytes], advance: Callable[[int], object], span: Span) -> bytes:
    made = digest(span)
    advance(span[1])
    return made


def _current(row: FileRow) -> bool:
    try:
        return row_of(row.path, os.stat(row.path)) == row
    except OSError:
        return False


def _read(path: Path) -> _Page | None:
    """None if there is no page, or none that can be read."""
    try:
        with path.open("rb") as stream:
            return _pages.decode(stream.read(_LARGEST_PAGE))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


_pages = msgspec.msgpack.Decoder(_Page)
