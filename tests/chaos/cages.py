"""Places where a server's resources can be taken away from outside. Making one may take rights that we lack."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_EMPTY_SECONDS = 10.0


class Unavailable(Exception):
    """This kind of fault cannot be made here; the message says why."""


class ProcessLimit:
    """A control group whose number of processes and threads can be limited: at the limit, forks fail with EAGAIN."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[ProcessLimit]:
        """A group of its own, removed at the end. Raises `Unavailable`."""
        parents = [_GROUPS / "pids", _GROUPS] if (_GROUPS / "pids").is_dir() else [_GROUPS]
        for parent in parents:
            try:
                folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=parent))
            except OSError as error:
                raise Unavailable(f"no control group can be made in {parent}: {error.strerror}") from error
            if (folder / "pids.max").exists():
                break
            folder.rmdir()
        else:
            raise Unavailable(f"control groups in {_GROUPS} have no pids.max")
        try:
            yield cls(folder)
        finally:
            end = time.monotonic() + _EMPTY_SECONDS
            while time.monotonic() < end and _removed(folder):
                time.sleep(0.1)

    def take(self, pid: int) -> None:
        """Move a process in, with what it will start."""
        (self.folder / "cgroup.procs").write_text(f"{pid}")

    @contextmanager
    def full(self) -> Iterator[None]:
        """No further process or thread can be started meanwhile."""
        (self.folder / "pids.max").write_text("1")
        try:
            yield
        finally:
            (self.folder / "pids.max").write_text("max")

    def groups(self) -> list[Path]:
        """What others have made inside."""
        return [path for path in self.folder.iterdir() if path.is_dir()]


def _removed(folder: Path) -> bool:
    """Whether it is still there."""
    with suppress(OSError):
        folder.rmdir()
    return folder.exists()


class SmallDisk:
    """A file system of a few megabytes in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @classmethod
    @contextmanager
    def mounted(cls, folder: Path, megabytes: int = 16) -> Iterator[SmallDisk]:
        """On an empty folder. Raises `Unavailable`."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "chaos", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise Unavailable("there is no mount command") from error
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"a small disk cannot be mounted: {error.stderr.strip()}") from error
        try:
            yield cls(folder)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Nothing more can be written meanwhile."""
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
        try:
            yield
        finally:
            self._ballast.unlink(missing_ok=True)


@contextmanager
def few_descriptors(pid: int, spare: int = 0) -> Iterator[None]:
    """Process `pid` can open no more than `spare` further files meanwhile. Nothing if it is gone."""
    if not hasattr(psutil.Process, "rlimit"):
        raise Unavailable("limits of other processes cannot be changed here")
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        before = process.rlimit(psutil.RLIMIT_NOFILE)
        numbers = sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        free = [number for number in range(numbers[-1] + spare + 2) if number not in set(numbers)]
        process.rlimit(psutil.RLIMIT_NOFILE, (free[spare], before[1]))  # the limit is of the next number
        try:
            yield
        finally:
            with suppress(psutil.Error, OSError):
                process.rlimit(psutil.RLIMIT_NOFILE, before)
        return
    yield
