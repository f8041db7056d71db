"""The memory and cores that this process may use: limits of its control groups (versions 1 and 2) and of the machine.

A group's limit holds for all groups beneath it, so the smallest limit of all visible ancestors counts. See cgroups(7)
and, for the files, the kernel's documentation of both versions.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

_UNLIMITED = 1 << 60  # version 1 writes a number like this where there is no limit


@dataclass(frozen=True, slots=True)
class _Mount:
    """Where a hierarchy of groups is mounted. `top` is the group that is seen there."""

    top: PurePosixPath
    point: Path
    version: int
    controllers: frozenset[str]  # of version 1


class ControlGroups:
    """The control groups of a process.

    `membership` is the text of /proc/PID/cgroup, `mounts` that of /proc/PID/mountinfo, and mount points are looked for
    under `root`. Files that are missing or cannot be parsed count as no limit.
    """

    def __init__(self, membership: str, mounts: str, root: Path = Path("/")) -> None:
        self._mounts = [mount for line in mounts.splitlines() if (mount := _mount(line, root))]
        self._paths: dict[str, PurePosixPath] = {}  # by controller; "" is version 2
        for line in membership.splitlines():
            fields = line.split(":", 2)
            if len(fields) == 3:
                self._paths |= dict.fromkeys(fields[1].split(","), PurePosixPath(fields[2]))

    @classmethod
    def own(cls) -> ControlGroups:
        """The control groups of this process."""
        return cls(_text(Path("/proc/self/cgroup")), _text(Path("/proc/self/mountinfo")))

    def memory_limit(self) -> int | None:
        """Bytes; None without a limit."""
        return min((limit for limit, _ in self._memory()), default=None)

    def memory_left(self) -> int | None:
        """Bytes that can be allocated now if the page cache of files is given up; None without a limit."""
        return min((max(0, limit - used) for limit, used in self._memory()), default=None)

    def processors(self) -> float | None:
        """CPU time that the groups may use, in processors; None without a limit."""
        return min(self._processors(), default=None)

    def tasks_left(self) -> int | None:
        """Processes and threads that can still be started; None without a limit."""
        found = []
        for _, group in self._groups("pids"):
            limit, used = _number(group / "pids.max"), _number(group / "pids.current")
            if limit is not None:
                found.append(max(0, limit - (used or 0)))
        return min(found, default=None)

    def _memory(self) -> Iterator[tuple[int, int]]:
        """Limit and use of each group that has a limit, in bytes."""
        for version, group in self._groups("memory"):
            told = _table(group / "memory.stat")
            if version == 2:
                limits = [_number(group / "memory.max"), _number(group / "memory.high")]
                used, inherited = _number(group / "memory.current"), ""
            else:
                limits = [_number(group / "memory.limit_in_bytes"), told.get("hierarchical_memory_limit")]
                used, inherited = _number(group / "memory.usage_in_bytes"), "total_"
            limit = min((each for each in limits if each is not None), default=_UNLIMITED)
            if limit < _UNLIMITED:
                kinds = ("active_file", "inactive_file", "slab_reclaimable")
                yield limit, max(0, (used or 0) - sum(told.get(inherited + kind, 0) for kind in kinds))

    def _processors(self) -> Iterator[float]:
        for version, group in self._groups("cpu"):
            if version == 2:
                quota, _, period = _text(group / "cpu.max").partition(" ")
            else:
                quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
            if quota.isdecimal() and period.isdecimal() and int(period):
                yield int(quota) / int(period)

    def _groups(self, controller: str) -> Iterator[tuple[int, Path]]:
        """Version and folder of each group whose limits of a controller hold: from its own to the topmost."""
        for version, name in ((1, controller), (2, "")):
            path = self._paths.get(name)
            its = [m for m in self._mounts if m.version == version and (version == 2 or name in m.controllers)]
            if path is None or not its:
                continue
            beneath = [mount for mount in its if path.is_relative_to(mount.top)]
            mount = (beneath or its)[0]
            group = mount.point
            if beneath and ".." not in path.parts:  # else it is not seen there; the topmost one is the nearest
                group = mount.point / path.relative_to(mount.top)
            while True:
                yield version, group
                if group == mount.point:
                    break
                group = group.parent


def memory() -> int:
    """Most bytes that this process and the others of its control groups can have together."""
    total = int(psutil.virtual_memory().total)
    limit = ControlGroups.own().memory_limit()
    return total if limit is None else min(total, limit)


def memory_is_limited() -> bool:
    """Whether a control group leaves less memory than the machine has."""
    return memory() < int(psutil.virtual_memory().total)


def available_memory() -> int:
    """Bytes that can be allocated now without swapping."""
    free = int(psutil.virtual_memory().available)
    left = ControlGroups.own().memory_left()
    return free if left is None else min(free, left)


def cores() -> int:
    """Threads that can compute side by side: the affinity of this process, limited by its control groups' CPU time."""
    bound = len(os.sched_getaffinity(0))
    limit = ControlGroups.own().processors()
    return bound if limit is None else max(1, min(bound, math.ceil(limit)))


def _mount(line: str, root: Path) -> _Mount | None:
    """A line of mountinfo (proc(5)), if it mounts control groups."""
    before, found, after = line.partition(" - ")
    fields, kind = before.split(" "), after.split(" ")
    if not found or len(fields) < 6 or len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:
        return None
    top, point = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field) for field in fields[3:5])
    version = 2 if kind[0] == "cgroup2" else 1
    return _Mount(PurePosixPath(top), root / point.lstrip("/"), version, frozenset(kind[2].split(",")))


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:  # this kernel does not have it, or it cannot be seen here
        return ""


def _number(file: Path) -> int | None:
    """None if the file is missing, or says `max`."""
    text = _text(file)
    return int(text) if text.isdecimal() else None


def _table(file: Path) -> dict[str, int]:
    found = {}
    for line in _text(file).splitlines():
        with suppress(ValueError):
            name, number = line.split()
            found[name] = int(number)
    return found
