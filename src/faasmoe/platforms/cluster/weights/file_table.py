"""The file table of an artifact, its last line: which files it maps, and in which state they were (`FunctionSpec`)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec


class FileRow(NamedTuple):
    """A file in a state: it differs when the file is replaced, written to or cut short."""

    path: str
    device: int
    inode: int
    size: int  # bytes
    mtime_ns: int


def row_of(path: Path | str, found: os.stat_result) -> FileRow:
    """The row of a file. Raises `OSError` if it is no regular file."""
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "it is no regular file")
    return FileRow(str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def split(artifact: bytes) -> tuple[bytes, list[FileRow]]:
    """An artifact without its file table, and the table. Raises `ValueError` if it has none."""
    content, _, table = artifact.rstrip(b"\n").rpartition(b"\n")
    try:
        return content + b"\n", _rows.decode(table)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError("its last line is no file table") from error


def joined(content: bytes, rows: Iterable[FileRow]) -> bytes:
    """An artifact."""
    return content + msgspec.json.encode([tuple(row) for row in rows]) + b"\n"


_rows = msgspec.json.Decoder(list[FileRow])
