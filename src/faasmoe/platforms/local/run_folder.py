"""A private folder for the sockets and files of something that runs, and the removal of those left by crashes.

Its owner holds a lock on a file in it for as long as it lives, whatever ends it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from faasmoe.closing import Closing

log = logging.getLogger(__name__)

SOCKET = "daemon.sock"
_PREFIX = "faasmoe-"
_LOCK = "lock"
_SETTLE_SECONDS = 60.0  # a folder younger than this may not have its lock yet


def place() -> Path:
    """Where run folders lie: the user's runtime directory, or else the temporary one."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())


class RunFolder(Closing):
    """Made for the user alone (mode 0700), removed by `close`."""

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place()))
        draft = self.path / f"{_LOCK}.new"
        self._lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        draft.rename(self.path / _LOCK)  # nobody ever finds the file without its lock

    def close(self) -> None:
        """Remove it. May be called twice."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def pools() -> list[Path]:
    """Run folders of this user's pools that are alive."""
    return [folder for folder in _mine() if (folder / SOCKET).exists() and not _abandoned(folder)]


def sweep() -> None:
    """Remove what crashes have left: processes that still work in an abandoned folder, then the folder."""
    for folder in _mine():
        if _abandoned(folder):
            log.warning("removing %s, which a crash has left", folder)
            _kill_orphans(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _mine() -> Iterator[Path]:
    for folder in sorted(place().glob(f"{_PREFIX}*")):
        with suppress(FileNotFoundError):
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                yield folder


def _abandoned(folder: Path) -> bool:
    try:
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        try:
            return time.time() - folder.stat().st_mtime > _SETTLE_SECONDS
        except FileNotFoundError:
            return False
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _kill_orphans(folder: Path) -> None:
    for process in psutil.process_iter(["cmdline", "uids"]):
        uids, command = process.info["uids"], process.info["cmdline"] or ()
        if uids and uids.real == os.getuid() and str(folder) in command:
            with suppress(psutil.NoSuchProcess):
                process.kill()
