"""Processes as the kernel accounts them: who belongs to a system, in which role, and what each takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from faasmoe.util.processes import ROLE

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST = 4096  # bytes, more than any of the files that are read here has
_TOLD = f"{ROLE}=".encode()  # in the environment of a process that tells its role
_CHILDREN = {"template": "orchestrator", "zygote": "instances"}  # of what forks; their environment is its own
_PARENTS = {child: parent for parent, child in _CHILDREN.items()}
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A process at one moment."""

    pid: int
    parent: int
    started: int  # clock ticks after boot: tells it from a later one with the same id
    cpu: float  # seconds of its own, in user and kernel mode
    reaped: float  # seconds of children that have ended and were waited for, and of theirs
    rss: int = 0  # bytes of its memory that are resident, those that it shares included


class Footprint(NamedTuple):
    """Bytes of memory of a process."""

    pss: int  # that it stands for: its own pages, and its part of those that it shares
    private: int  # of pages that nobody else has mapped
    rss: int  # resident, as `Seen` has it, just before


def footprint(pid: int) -> Footprint:
    """The memory of process `pid`; zero if the process has ended. Source: proc(5), smaps_rollup."""
    seen = look(pid)
    try:
        lines = _read(f"/proc/{pid}/smaps_rollup").splitlines() if seen else []
    except _GONE:
        lines = []
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines[1:]}  # the first is of the mapping
    private = sizes.get(b"Private_Clean:", 0) + sizes.get(b"Private_Dirty:", 0)
    return Footprint(sizes.get(b"Pss:", 0), private, seen.rss if seen else 0)


def proportional_set_size(pid: int) -> int:
    """Bytes of memory that process `pid` stands for; 0 if it is gone."""
    return footprint(pid).pss


def look(pid: int) -> Seen | None:
    """The process `pid`, None if it is gone. Source: proc(5), stat."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except _GONE:
        return None
    fields = text.rpartition(b")")[2].split()  # from the third on; the second may hold anything
    own, reaped = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return Seen(
        pid=pid,
        parent=int(fields[1]),
        started=int(fields[19]),
        cpu=own / _TICKS,
        reaped=reaped / _TICKS,
        rss=int(fields[21]) * _PAGE,
    )


def _read(path: str) -> bytes:
    """A small file of the kernel's, which makes its text when it is read. Ten times a second pathlib is slow."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MOST)
    finally:
        os.close(fd)


class Family:
    """A process and all that it has started, directly or not, by role.

    `role` is that of the root. A descendant has the role that it was told, or else its parent's. `without` are process
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
        return _CHILDREN.get(parent) or _told(process.pid) or parent


def role_of_child(parent: str) -> str:
    """The role of a child of which nothing else is known."""
    return _CHILDREN.get(parent, parent)


def fork_family(role: str) -> str:
    """The role of the process that forks processes of `role`. They share memory with it and with each other."""
    return _PARENTS.get(role, role)


def _told(pid: int) -> str | None:
    """The role that the process was given when it was started (`util.processes.ROLE`)."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except _GONE:
        return None
    return next((each.removeprefix(_TOLD).decode() for each in variables if each.startswith(_TOLD)), None)
