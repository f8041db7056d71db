"""The cache of compiled kernels, which are kept from one start to the next, and log lines about compiling.

A process runs the code that it reads there, so it lies in a folder that only this user can write to. numba uses kept
code of a function as long as the file of that function is the same, even if functions that it calls have changed. So
the folder's name has a digest of all files of `experts`, and code outside calls compiled code of this package only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba.core import event

from faasmoe.errors import OptionError, brief

log = logging.getLogger(__name__)

CACHE = "FAASMOE_CACHE"  # environment variable: the folder for what can be made again
_COMPILING = "numba:compile"  # an event of numba's, which does not come for what was kept


def user_cache() -> Path:
    """The folder for what can be made again; it need not exist. Raises `OptionError` if nothing says where it is."""
    given = os.environ.get(CACHE)
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "faasmoe"
    try:
        return base.expanduser().absolute()
    except RuntimeError as error:  # this user has no home
        raise OptionError(f"{base}: {brief(error)}; the environment variable {CACHE} names a folder") from error


@dataclass(frozen=True)
class KernelCache:
    """The folder of this version's kernels, or why there is none."""

    folder: Path | None
    trouble: str = ""

    @classmethod
    def open(cls) -> KernelCache:
        """Make the folder, if it can be made and no other user can write to it."""
        try:
            kernels = user_cache() / "kernels"
            folder = kernels / _digest(Path(__file__).parents[1])
            kernels.parent.mkdir(parents=True, exist_ok=True)
            for each in (kernels, folder):
                each.mkdir(mode=0o700, exist_ok=True)
            _check_private(folder.resolve())
            tempfile.TemporaryFile(dir=folder).close()
        except OptionError as error:
            return cls(None, str(error))
        except OSError as error:
            why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            return cls(None, f"{why}; the environment variable {CACHE} names a folder that this user can write to")
        return cls(folder)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Have the log say whether kernels are compiled in here, how long it took, and whether they are kept."""
        compiling = _Compiling()
        with event.install_listener(_COMPILING, compiling):
            yield
        if not compiling.done:
            return
        if self.folder:
            log.info("compiled kernels in %.1f s; they are kept in %s", compiling.duration, self.folder)
        else:
            log.warning("compiled kernels in %.1f s, as at every start, since they cannot be kept: %s",
                        compiling.duration, self.trouble)  # fmt: skip


class _Compiling(event.TimingListener):  # type: ignore[misc]  # numba has no types
    def on_start(self, event: Any) -> None:
        """numba begins to compile a function."""
        if not self._depth and not self.done:
            log.info("compiling kernels, which takes a minute or two")
        super().on_start(event)


def _digest(folder: Path) -> str:
    """A digest of the sources in a folder and below it."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        found.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]


def _check_private(folder: Path) -> None:
    """Raises `PermissionError` if others can write to `folder` or the one above, or put another one in its place."""
    own = os.getuid()
    for depth, each in enumerate((folder, *folder.parents)):
        found = each.stat()
        others = stat.S_IWOTH | (stat.S_IWGRP if depth < 2 or found.st_gid != os.getgid() else 0)
        protected = depth >= 2 and found.st_mode & stat.S_ISVTX
        if found.st_uid not in ((own,) if depth < 2 else (own, 0)) or (found.st_mode & others and not protected):
            raise PermissionError(f"{each} belongs to another user, or others may write to it")
