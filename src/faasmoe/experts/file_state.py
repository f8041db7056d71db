"""The state of a file, by which a later look tells whether it is still the same file with the same content."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from faasmoe.errors import CheckpointChanged

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class FileState:
    """A file's identity and state. It differs when the file is replaced, written to or cut short."""

    device: int
    inode: int
    size: int  # bytes
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """The state in the result of `stat` or `fstat`."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    @classmethod
    def read(cls, file: Path) -> FileState:
        """The state of the file at a path. Raises `OSError`, also if it is no regular file."""
        found = file.stat()
        _check_kind(found)
        return cls.of(found)

    def same_file(self, other: FileState) -> bool:
        """Whether both are states of one file."""
        return (self.device, self.inode) == (other.device, other.inode)

    def difference(self, now: FileState) -> str:
        """The difference between two states, as the end of a sentence; empty if there is none."""
        if not self.same_file(now):
            return "was replaced by another file"
        if self.size != now.size:
            return f"was changed from {self.size} to {now.size} bytes"
        return "was written to" if self.mtime_ns != now.mtime_ns else ""


def open_regular(file: Path | str) -> tuple[int, FileState]:
    """A descriptor of `file` for reading, and the state of exactly that file. The caller closes it.

    Never waits, as opening a named pipe would. Raises `OSError`, also if it is no regular file.
    """
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(fd)
        _check_kind(found)
    except BaseException:
        os.close(fd)
        raise
    return fd, FileState.of(found)


def changed(file: Path, what: str) -> CheckpointChanged:
    """The error for a file that `what` has happened to."""
    return CheckpointChanged(
        f"{file.name} {what} while the model was in use; restart the server to load what is there now"
    )


def _check_kind(found: os.stat_result) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(0, f"it is {_KINDS.get(kind, 'something else')}, not a file")
