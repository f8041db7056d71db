"""Fetches the weights of a function into the cache: what is there already is kept, so a fetch that ended goes on."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from faasmoe.platforms.cluster.protocol.content import FunctionContent, WeightPiece
from faasmoe.platforms.cluster.weights.cache import CacheEntry
from faasmoe.platforms.cluster.weights.digest_book import DigestBook, OpenFile
from faasmoe.platforms.cluster.weights.file_table import FileRow
from faasmoe.platforms.cluster.weights.piece_lane import AT_ONCE, PieceLane, PiecesRefused
from faasmoe.util.closeable import Closeable
from faasmoe.util.machine import cores


class WeightsDraft(Closeable):
    """The files of a cache entry, which this process alone writes while the draft is open; others wait."""

    def __init__(self, content: FunctionContent, entry: CacheEntry) -> None:
        """Raises `OSError`."""
        self._content = content
        self._pieces = list(content.pieces().items())
        with ExitStack() as stack:
            self._files = [
                stack.enter_context(SparseFile(entry.file(number), file.size))
                for number, file in enumerate(content.files)
            ]
            if self._files:
                fcntl.flock(self._files[0].fd, fcntl.LOCK_EX)
            self._stack = stack.pop_all()

    def missing(self) -> list[int]:
        """Numbers of the pieces that are not there. Reads and hashes those that are. Raises `OSError`."""
        return [
            number
            for number, (piece, digest) in enumerate(self._pieces)
            if not self._files[piece.file].has(piece, digest)
        ]

    def fetch(self, lane: PieceLane, function: str, missing: Sequence[int]) -> None:
        """Fetch pieces. Each is hashed before it is written, and asked for again if its bytes are wrong.

        Raises `PiecesRefused` if they are wrong again, or cannot be had, `Lost`, or `OSError`, as on a full disk.
        """
        wrong = list(self._wrong(lane, function, missing, again=False))
        if wrong and (wrong := list(self._wrong(lane, function, wrong, again=True))):
            piece, _ = self._pieces[wrong[0]]
            raise PiecesRefused(
                f"{len(wrong)} pieces came twice with other bytes than were deployed, the first at byte {piece.offset} "
                f"of {self._content.files[piece.file].path}: the file was changed, or its disk is damaged"
            )

    def _wrong(self, lane: PieceLane, function: str, wanted: Sequence[int], again: bool) -> Iterator[int]:
        """Fetch pieces and write them. Yields those that came with wrong bytes.

        Pieces are hashed and written, on several cores, while the next ones come.
        """
        under_way = deque[tuple[int, Future[bool]]]()
        with ThreadPoolExecutor(min(AT_ONCE, cores()), "piece") as pool:
            for number, data in lane.fetch(function, self._content, wanted, again):
                under_way.append((number, pool.submit(self._take, number, data)))
                if len(under_way) == AT_ONCE:
                    yield from _failed(under_way.popleft())
            while under_way:
                yield from _failed(under_way.popleft())

    def _take(self, number: int, data: memoryview) -> bool:
        """Write a piece if its bytes are right. Returns whether they are. Raises `OSError`."""
        piece, digest = self._pieces[number]
        right = hashlib.sha256(data).digest() == digest
        if right:
            self._files[piece.file].write(piece, data)
        return right

    def finish(self, book: DigestBook) -> list[FileRow]:
        """Have the files outlive a loss of power, and note their digests. Returns their rows. Raises `OSError`."""
        rows = []
        for number, file in enumerate(self._files):
            os.fsync(file.fd)
            rows.append(file.row())
            digests = {(p.offset, p.length): digest for p, digest in self._pieces if p.file == number}
            book.note(file.path, rows[-1], digests)
        return rows

    def close(self) -> None:
        """May be called twice."""
        self._stack.close()


def _failed(taken: tuple[int, Future[bool]]) -> Iterator[int]:
    """The number of a piece if its bytes are wrong. Waits for it. Raises what has kept it from being written."""
    number, right = taken
    if not right.result():
        yield number


class SparseFile(OpenFile):
    """A file of the cache: as long as the one whose ranges it holds, with holes for all else."""

    def __init__(self, path: Path, size: int) -> None:
        """Raises `OSError`."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        super().__init__(path, os.O_RDWR)
        if self.before.size != size:
            os.ftruncate(self.fd, size)

    def has(self, piece: WeightPiece, digest: bytes) -> bool:
        """Whether the piece is there, and has this digest."""
        try:
            data = os.lseek(self.fd, piece.offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return False
            raise
        return data < piece.offset + piece.length and self.digest((piece.offset, piece.length)) == digest

    def write(self, piece: WeightPiece, data: memoryview) -> None:
        """Raises `OSError`, which names the file."""
        at = piece.offset
        while data.nbytes:
            try:
                written = os.pwrite(self.fd, data, at)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            data, at = data[written:], at + written
