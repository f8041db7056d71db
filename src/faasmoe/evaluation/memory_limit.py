"""A control group with a memory limit, in which page cache counts as all other memory does.

The kernel charges a page of a file to the group that first brings it into memory. So files have to be forgotten before,
or they lie in memory at no cost of the group.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from faasmoe.errors import MeasurementError, OptionError

log = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")
_LEAST = 64 << 20  # bytes with which Python starts


class MemoryLimit:
    """Such a group while it is entered. Processes join it by themselves (`join`), and have ended when it is left.

    Raises `OptionError` where there are no groups that this user may make, and `MeasurementError` if one is not taken.
    """

    def __init__(self, nbytes: int, root: Path = ROOT) -> None:
        if nbytes < _LEAST:
            raise OptionError(f"a memory limit of {nbytes} bytes: must be {_LEAST} at least")
        self._nbytes = nbytes
        self._parent, self._limit, self._most = _places(root)

    def __enter__(self) -> Self:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="faasmoe-", dir=self._parent))
        except OSError as error:
            raise OptionError(
                f"{self._parent}: a control group cannot be made ({error.strerror}); memory is limited with one, "
                "so this needs root, or a folder of groups that is delegated to you"
            ) from error
        self._made = self.folder.lstat()
        try:
            (self.folder / self._limit).write_text(f"{self._nbytes}")
            for swap in ("memory.memsw.limit_in_bytes", "memory.swap.max"):  # else anonymous memory could go there
                if (self.folder / swap).exists():
                    (self.folder / swap).write_text("0" if swap.endswith("max") else f"{self._nbytes}")
        except OSError as error:
            self.folder.rmdir()
            raise MeasurementError(f"{self.folder}: the memory limit cannot be set: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if os.path.samestat(self._made, self.folder.lstat()):  # else it is not the group that was made
                self.folder.rmdir()
        except OSError as failure:  # a process that is about to end
            log.warning("%s: this control group cannot be removed: %s", self.folder, failure.strerror)

    def most(self) -> int | None:
        """Most bytes that were charged so far; None if the kernel does not tell."""
        with suppress(OSError):
            return int((self.folder / self._most).read_text())
        return None


def join(group: str) -> None:
    """Have this process, and all that it starts from now on, count in a group."""
    Path(group, "cgroup.procs").write_text(f"{os.getpid()}")


def _places(root: Path) -> tuple[Path, str, str]:
    """The folder for new control groups, and the names of the files with the limit and the peak (version 2 or 1)."""
    with suppress(OSError):
        if "memory" in (root / "cgroup.subtree_control").read_text().split():
            return root, "memory.max", "memory.peak"
    if (root / "memory/memory.limit_in_bytes").exists():
        return root / "memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"
    raise OptionError(f"{root}: has no control groups for memory (version 1 or 2), with which it is limited")


def forget_files(model: Path) -> None:
    """Drop a model's files and the libraries beside this Python from the page cache, as far as the kernel can.

    Pages that a process has mapped stay.
    """
    beside = [file for file in model.parent.glob(f"{model.name}*.gguf") if file.is_file()]
    libraries = [file for file in Path(sys.prefix).rglob("*.so*") if file.is_file()]
    for file in [*model.glob("*.safetensors"), *beside, *libraries]:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
