"""A quantised copy of a checkpoint's large matrices, which is made once and mapped by every process that uses it.

It is kept in the user's cache, in a folder named after the checkpoint and its state: a safetensors file for the dense
part's linear layers, one for its head if that has a format of its own, and one for each layer's experts. Where
everything lies in these files follows from the checkpoint's shapes, so it is known before they are written
(`model.weights.quantised_file`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from faasmoe.errors import OptionError, brief
from faasmoe.experts.artifact import ExpertLocations
from faasmoe.experts.file_state import FileState
from faasmoe.experts.formats.base import MatrixLocation, WeightFormat
from faasmoe.model.weights.quantised_file import Advance, QuantisedFile
from faasmoe.util.folders import copy_cache
from faasmoe.util.folders.user_cache import CACHE
from faasmoe.util.machine import cores
from faasmoe.util.progress_log import progress_log

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QuantisedCopy:
    """The whole copy, which need not have been made yet."""

    format: WeightFormat
    cause: str  # of the copy, in errors: an option, or the format of the checkpoint
    folder: Path
    sources: tuple[copy_cache.State, ...]  # the checkpoint's files
    files: tuple[QuantisedFile, ...]
    linears: dict[str, MatrixLocation]  # modules of the dense part
    experts: dict[str, tuple[ExpertLocations, ...]]  # experts modules to their experts, with matrices [out, in]

    @property
    def nbytes(self) -> int:
        """Size of all files."""
        return sum(file.nbytes for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes of files that have to be written."""
        return sum(file.nbytes for file in self.files if not file.there)

    def make(self, advance: Advance | None = None) -> None:
        """Write the files that are missing. One process at a time does, others wait for it.

        Copies of checkpoints that are no longer there go first.

        `advance` is called with progress; without it progress is logged. Raises `OptionError` if there is no room for
        the files, `CheckpointError` if the checkpoint holds a weight that is not finite.
        """
        if not self.missing:
            return
        try:
            copy_cache.sweep(self.folder.parent)
            copy_cache.create(self.folder, self.sources, [file.path.name for file in self.files])
            with copy_cache.use(self.folder), _locked(self.folder):
                self._write(advance)
        except OSError as error:
            raise OptionError(
                f"{self.cause}: weights cannot be written to {self.folder}: {brief(error)}; "
                f"the environment variable {CACHE} names another folder for them"
            ) from error

    def states(self) -> dict[Path, FileState]:
        """All files, once they are made, as they are now. Raises `OptionError` if one cannot be read."""
        try:
            return {file.path: FileState.read(file.path) for file in self.files}
        except OSError as error:
            raise OptionError(
                f"{self.cause}: {self.format.name} weights cannot be read: {error.strerror}"
            ) from error

    def use(self) -> IO[bytes]:
        """A stream that keeps the copy, which must have been made, from being removed while it is open."""
        return copy_cache.use(self.folder)

    def _write(self, advance: Advance | None) -> None:
        files = [file for file in self.files if not file.there]  # another process may have written some meanwhile
        needed, free = sum(file.nbytes for file in files), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OptionError(
                f"{self.cause}: {self.format.name} weights take {needed / 1e9:.2f} GB, but "
                f"{self.folder} has {free / 1e9:.2f} GB left; "
                f"the environment variable {CACHE} names another folder for them"
            )
        told = advance or _logged(self.format.name, self.folder, needed)
        with ThreadPoolExecutor(cores()) as pool:
            for _ in pool.map(lambda file: file.write(told), files):
                pass


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone in `folder` among processes. The kernel frees the lock of one that dies."""
    fd = os.open(folder / copy_cache.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process, which writes %s", folder)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _logged(name: str, folder: Path, needed: int) -> Advance:
    """A function that logs progress."""
    log.info("writing %s weights to %s: %.2f GB, once for this checkpoint", name, folder, needed / 1e9)
    return progress_log(log, f"writing {name} weights", needed)
