"""Which copies of weights are still of use: those of checkpoints that are as they were. The others go.

Each copy is a folder with a file that says what it was made from, and one that is locked by whoever uses it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

_MADE_FROM = "made-from.json"
_USED = "used"

State = tuple[str, int, int]  # a file, its size, and when it was changed, in ns


def state(file: Path) -> State:
    """Of a checkpoint's file as it is now. Raises `OSError`."""
    found = file.stat()
    return str(file), found.st_size, found.st_mtime_ns


def record(folder: Path, sources: Sequence[State]) -> None:
    """Note what the copy in `folder` is made from. Raises `OSError`."""
    draft = folder / f"{_MADE_FROM}.new"
    draft.write_text(json.dumps(sources))
    draft.rename(folder / _MADE_FROM)


def use(folder: Path) -> IO[bytes]:
    """Keep the copy from being removed while what is returned is open, here or in a process forked from this one."""
    stream = (folder / _USED).open("wb")
    fcntl.flock(stream, fcntl.LOCK_SH)
    return stream


def sweep(base: Path) -> None:
    """Remove copies in `base` whose checkpoints are gone or have changed, unless somebody uses them."""
    for made_from in sorted(base.glob(f"*/{_MADE_FROM}")):
        with suppress(OSError):  # somebody else removes it, or may
            if not _current(made_from):
                _remove(made_from.parent)


def _current(made_from: Path) -> bool:
    try:
        return all(
            state(Path(file)) == (file, size, time) for file, size, time in json.loads(made_from.read_text())
        )
    except (FileNotFoundError, NotADirectoryError, TypeError, ValueError):
        return False


def _remove(folder: Path) -> None:
    with (folder / _USED).open("wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        nbytes = sum(file.stat().st_size for file in folder.iterdir())
        log.info("removing %s, %.2f GB: its checkpoint is gone or has changed", folder, nbytes / 1e9)
        shutil.rmtree(folder)
