"""Control groups of test processes: a limit of memory, and of CPU time for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds, over which CPU time is counted
_JOIN = 'for group in $GROUPS_TO_JOIN; do echo $$ > "$group/cgroup.procs"; done; exec "$@"'


@dataclass(frozen=True)
class ControlGroup:
    """Folders of a group: one in version 2 of control groups, one for each controller in version 1."""

    folders: Sequence[Path]

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command that runs `arguments` in the group."""
        joined = " ".join(map(str, self.folders))
        return ["env", f"GROUPS_TO_JOIN={joined}", "sh", "-c", _JOIN, "sh", *arguments]

    @contextmanager
    def limited(self, share: float) -> Iterator[None]:
        """Leave the group this share of a core's time."""
        self._write({"cpu.max": f"{share * _PERIOD:.0f} {_PERIOD}", "cpu.cfs_quota_us": f"{share * _PERIOD:.0f}"})
        try:
            yield
        finally:
            self._write({"cpu.max": f"max {_PERIOD}", "cpu.cfs_quota_us": "-1"})

    def limit_memory(self, nbytes: int) -> None:
        """Raises `OSError`."""
        self._write({"memory.max": str(nbytes), "memory.limit_in_bytes": str(nbytes)})

    def _write(self, by_version: dict[str, str]) -> None:
        for name, value in by_version.items():
            for file in (folder / name for folder in self.folders):
                if file.exists():
                    file.write_text(value)


@contextmanager
def control_group(name: str, memory: int | None) -> Iterator[ControlGroup | None]:
    """A group in that of this process; None where it may not make one."""
    made: list[Path] = []
    try:
        for parent in _parents():
            (parent / name).mkdir()
            made.append(parent / name)
        group = ControlGroup(made)
        if memory is not None:
            group.limit_memory(memory)
    except OSError:
        _remove(made)
        yield None
        return
    try:
        yield group
    finally:
        _remove(made)


def _parents() -> list[Path]:
    """Where groups for memory and CPU time are made. Raises `OSError` where that is nowhere."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    by_controller = {name: path for _, names, path in lines for name in names.split(",") if name}
    if {"cpu", "memory"} <= by_controller.keys():
        return [_ROOT / name / by_controller[name].lstrip("/") for name in ("cpu", "memory")]
    own = _ROOT / next(path for number, _, path in lines if number == "0").lstrip("/")
    if not {"cpu", "memory"} <= set((own / "cgroup.subtree_control").read_text().split()):
        raise OSError(f"{own} hands on no limits of CPU time and memory")
    return [own]


def _remove(folders: Sequence[Path]) -> None:
    """Processes that were killed are in their group for a little longer."""
    for folder in folders:
        for _ in range(100):
            with suppress(OSError):
                os.rmdir(folder)
                break
            time.sleep(0.02)
