"""The cache of weights that a node has fetched: sparse files with the ranges of one function each, at their offsets.

    FOLDER/<digest of the function's weights>/used       its contents make the folder one of the cache
                                             /0.weights  of the first file that the function maps, and so on

The folder's name is the digest of its weights, so functions of any server that map the same bytes share it. Whoever
uses it holds a lock on `used`, and it was used last when that was written to. What is used is never removed; of what is
not, that which has been unused for longest goes when there is no room.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from faasmoe.util.closeable import Closeable
from faasmoe.util.folders import own_folders

log = logging.getLogger(__name__)

_KIND = b"FaaSMoE weights of a function, version 1\n"
_USED, _SUFFIX = "used", ".weights"
_BLOCK = 512  # bytes; stat(2), st_blocks
_SPARE = 64 << 20  # bytes of the disk that are left to others


class CacheFull(OSError):
    """Weights have no room on this machine. `strerror` says why."""


class CacheEntry(Closeable):
    """Weights of one function, which are kept while this is open, here or in another process."""

    def __init__(self, folder: Path) -> None:
        """Raises `OSError` if there is no such entry."""
        self.folder = folder
        fd = own_folders.open_own(folder / _USED)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        self._fd = fd
        fcntl.flock(fd, fcntl.LOCK_SH)
        if not own_folders.is_same(fd, folder / _USED):  # it was removed while we waited
            self.close()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        os.utime(fd)

    def file(self, number: int) -> Path:
        """The path of the weights from the function's file `number`."""
        return self.folder / f"{number}{_SUFFIX}"

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            with suppress(OSError):
                os.utime(self._fd)
            os.close(self._fd)
            self._fd = -1


class WeightsCache:
    """The cache in `folder`, which need not exist. `cap` is the most that it takes, in bytes; None: no limit.

    `free` tells how many bytes the disk has left for a folder.
    """

    def __init__(self, folder: Path, cap: int | None = None, free: Callable[[Path], int] | None = None) -> None:
        self.folder = folder
        self._cap = cap
        self._free = free or (lambda folder: shutil.disk_usage(folder).free)

    def entry(self, digest: str) -> CacheEntry | None:
        """The weights with this digest, as far as they have been fetched. None if there is nothing of them."""
        try:
            return CacheEntry(self.folder / digest)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def make(self, digest: str, nbytes: int) -> CacheEntry:
        """An entry for weights of so many bytes, with room for what of them is not there yet.

        Raises `CacheFull`, or another `OSError`.
        """
        path = self.folder / digest
        entry = self.entry(digest) or self._create(path)
        try:
            self._make_room(path, max(0, nbytes - _size(path)))
        except BaseException:
            entry.close()
            raise
        return entry

    def used(self) -> int:
        """Bytes that all entries take."""
        return sum(_size(path) for path in self._entries())

    def _create(self, path: Path) -> CacheEntry:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"new-{secrets.token_hex(8)}"
        draft.mkdir(0o700)
        try:
            (draft / _USED).write_bytes(_KIND)
            draft.rename(path)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not path.is_dir():  # else another process has made it meanwhile
                raise
        return CacheEntry(path)

    def _make_room(self, keep: Path, nbytes: int) -> None:
        """Remove entries until there is room for `nbytes` more. Raises `CacheFull`."""
        if not nbytes:
            return
        entries = sorted((path for path in self._entries() if path != keep), key=_last_used)
        while (lack := self._lack(nbytes)) and entries:
            _remove(entries.pop(0))
        if lack:
            raise CacheFull(errno.ENOSPC, lack, str(self.folder))

    def _lack(self, nbytes: int) -> str:
        """Why there is no room for `nbytes` more; empty if there is."""
        used = self.used()
        if self._cap is not None and used + nbytes > self._cap:
            return (f"no room for {nbytes / 1e6:.1f} MB of weights: {used / 1e6:.1f} MB of it are in use, and "
                    f"--weights-cache is {self._cap / 1e6:.1f} MB")  # fmt: skip
        free = self._free(self.folder)
        if nbytes + _SPARE > free:
            return (f"the disk is full: {nbytes / 1e6:.1f} MB of weights are to come, and {free / 1e6:.1f} MB are "
                    f"left, of which {_SPARE / 1e6:.1f} MB stay free")  # fmt: skip
        return ""

    def _entries(self) -> Iterator[Path]:
        for path in own_folders.folders(self.folder):
            with suppress(OSError):
                if (path / _USED).read_bytes() == _KIND:
                    yield path


def _last_used(path: Path) -> int:
    try:
        return (path / _USED).stat().st_mtime_ns
    except OSError:  # it is being removed
        return 0


def _size(path: Path) -> int:
    """Bytes that an entry takes on the disk."""
    nbytes = 0
    for file in path.glob(f"*{_SUFFIX}"):
        with suppress(OSError):
            nbytes += file.lstat().st_blocks * _BLOCK
    return nbytes


def _remove(path: Path) -> None:
    """Remove an entry, unless it is used."""
    fd = own_folders.open_own(path / _USED)
    if fd is None:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for file in [*path.glob(f"*{_SUFFIX}"), path / _USED]:  # `used` last: without it nobody knows the folder
            if stat.S_ISREG(file.lstat().st_mode):
                file.unlink()
        path.rmdir()
        log.info("weights were removed, as they had not been used for longest: %s", path)
    except BlockingIOError:
        return
    except OSError as error:
        log.warning("weights that are not used cannot be removed: %s: %s", path, error.strerror)
    finally:
        os.close(fd)
