"""Files that their owner alone may read, such as keys."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from faasmoe.errors import OptionError

_MOST_BYTES = 16 << 20  # of a file; a larger one was not written here
_LOCK = "lock"

_T = TypeVar("_T")


def make_folder(folder: Path) -> None:
    """Make a folder that its owner alone may enter, if there is none. Raises `OptionError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder}: cannot be made: {error.strerror}") from error


def write(file: Path, content: bytes) -> None:
    """Replace a file, whole or not at all. Its owner alone may read it. Raises `OptionError`."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with suppress(FileNotFoundError):
            draft.unlink()
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as error:
        raise OptionError(f"{file}: cannot be written: {error.strerror}") from error


def read(file: Path) -> bytes:
    """A file's contents. Raises `OptionError` if it cannot be read, or if others may read it or write to it."""
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(_MOST_BYTES)
    except OSError as error:
        raise OptionError(f"{file}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise OptionError(f"{file}: others may read or write it; mend it by: chmod 600 {file}")
    return content


def read_table(file: Path, kind: type[_T]) -> dict[str, _T]:
    """A table of records by name, as JSON; empty if there is no such file. Raises `OptionError`."""
    if not file.exists():
        return {}
    try:
        return msgspec.json.decode(read(file), type=dict[str, kind])  # type: ignore[valid-type]
    except msgspec.MsgspecError as error:
        raise OptionError(f"{file}: was not written by this program: {error}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Change files of a folder, which is made if need be, one process at a time. Raises `OptionError`."""
    make_folder(folder)
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OptionError(f"{folder}: cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
