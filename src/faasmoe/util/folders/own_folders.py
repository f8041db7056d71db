"""Finds the folders that this program may remove: folders of this user that hold a marker file with the right contents.

A folder's name proves nothing. A folder gets its marker before it gets its final name, so a folder without a marker was
not made by this program.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LARGEST_MARKER = 1 << 20  # bytes


def folders(base: Path) -> Iterator[Path]:
    """Candidates directly in `base`: this user's folders on its file system. Symbolic links are not followed.

    Yields nothing if there is no `base`.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        device = base.stat().st_dev
        for name in sorted(os.listdir(base)):
            with suppress(FileNotFoundError):  # somebody has just removed it
                found = (base / name).lstat()
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and found.st_dev == device:
                    yield base / name


def open_own(path: Path) -> int | None:
    """A descriptor, to read and write, of a regular file of this user with one name; None for anything else.

    Other kinds of files are not opened, because opening a FIFO or a device may block or have effects. Raises `OSError`.
    """
    try:
        if not _is_own(path.lstat()):
            return None
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    if _is_own(os.fstat(fd)):
        return fd
    os.close(fd)
    return None


def contents(fd: int) -> bytes:
    """The contents of a marker file, up to `_LARGEST_MARKER` bytes."""
    return os.pread(fd, _LARGEST_MARKER, 0)


def is_same(fd: int, path: Path) -> bool:
    """Whether `path` is still the file that is open as `fd`, and not another one in its place."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(fd), found)


def _is_own(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and found.st_nlink == 1
