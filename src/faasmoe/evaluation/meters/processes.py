"""Processes as the kernel accounts them: who belongs to a system, in which role, and what each takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_ROLE_OF_MODULE = {  # of a process that runs `python -m MODULE`
    "faasmoe.orchestrator.template": "template",
    "faasmoe.platforms.local.daemon": "daemon",
    "faasmoe.platforms.local.zygote": "zygote",
}
_CHILDREN = {"template": "orchestrator", "zygote": "instances"}  # of what forks; their commands are its own
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at one moment."""

    pid: int
    parent: int
    started: int  # clock ticks after boot: tells it from a later one with the same id
    cpu: float  # seconds of its own, in user and kernel mode
    reaped: float  # seconds of children that have ended and were waited for, and of theirs


def proportional_set_size(pid: int) -> int:
    """Bytes of memory that process `pid` stands for: its own pages, and its share of those it shares.

    0 if the process is gone. Source: proc(5), smaps_rollup, field Pss.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except _GONE:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def look(pid: int) -> Seen | None:
    """The process `pid`, None if it is gone. Source: proc(5), stat."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except _GONE:
        return None
    fields = text.rpartition(")")[2].split()  # from the third on; the second may hold anything
    own, reaped = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
    return Seen(pid, int(fields[1]), int(fields[19]), own / _TICKS, reaped / _TICKS)


class Family:
    """A process and all that it has started, directly or not, by role.

    `role` is that of the root, and of every descendant that is none of this project's processes. `without` are process
    ids that do not count, nor do their children.
    """

    def __init__(self, root: int, role: str, without: frozenset[int] = frozenset()) -> None:
        self._root = root
        self._role = role
        self._strangers: set[int] = set(without)
        self._without = without
        self._roles: dict[int, tuple[int, str]] = {}  # process id to when it started, and its role

    def look(self) -> dict[str, list[Seen]]:
        """Everybody now, by role. Empty if the root is gone."""
        there = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        self._strangers &= there | self._without
        seen = {pid: process for pid in there - self._strangers if (process := look(pid))}
        members: dict[str, list[Seen]] = {}
        roles: dict[int, tuple[int, str]] = {}
        for process in sorted(seen.values(), key=lambda process: process.started):  # parents before children
            role = self._role_of(process, roles)
            if role is None:
                self._strangers.add(process.pid)
            else:
                roles[process.pid] = process.started, role
                members.setdefault(role, []).append(process)
        self._roles = roles
        return members

    def _role_of(self, process: Seen, roles: dict[int, tuple[int, str]]) -> str | None:
        known = self._roles.get(process.pid)
        if known and known[0] == process.started:
            return known[1]  # even if its parent has ended
        if process.pid == self._root:
            return self._role
        if process.parent not in roles:
            return None
        parent = roles[process.parent][1]
        return _CHILDREN.get(parent) or _role_of_command(process.pid) or parent


def role_of_child(parent: str) -> str:
    """The role of a child of which nothing else is known."""
    return _CHILDREN.get(parent, parent)


def _role_of_command(pid: int) -> str | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except _GONE:
        return None
    return next((_ROLE_OF_MODULE[word] for word in words if word in _ROLE_OF_MODULE), None)
