"""The processes of one server, by what they are for. Found through their parents, never by name alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import psutil

from tests.processes import command

Role = Literal[
    "gateway",
    "daemon",
    "zygote",
    "worker",
    "instance",
    "template",
    "orchestrator",
    "fork server",
    "reader",
    "other",
]
CHILDREN: tuple[Role, ...] = get_args(Role)[1:-1]  # of the gateway, directly or not

_MODULES: dict[str, Role] = {
    "faasmoe.platforms.local.daemon": "daemon",
    "faasmoe.platforms.local.instance.zygote": "zygote",
    "faasmoe.orchestrator.template": "template",
    "faasmoe.readers.fork_server": "fork server",
}
_FORKED: dict[Role, Role] = {"template": "orchestrator", "fork server": "reader"}
_RECORDS = "/memfd:faasmoe-records"  # the daemon's page of figures: instances map it, waiting workers do not


class Process(NamedTuple):
    """One process; `started` tells it from a later one of the same id."""

    pid: int
    started: float
    role: Role

    def lives(self) -> bool:
        """Whether it is there and no zombie."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            return found.create_time() == self.started and found.status() != psutil.STATUS_ZOMBIE
        return False


class Tree:
    """All processes that descend from `root`, and all that ever were seen to."""

    def __init__(self, root: int) -> None:
        self._root = psutil.Process(root)
        self.seen: dict[tuple[int, float], Process] = {}

    def now(self) -> list[Process]:
        """Parents before children. Empty if the root is gone."""
        found: list[Process] = []
        with suppress(psutil.NoSuchProcess):
            children: dict[int, list[psutil.Process]] = {}
            for process in self._root.children(recursive=True):  # one look at all processes of the machine
                with suppress(psutil.NoSuchProcess):
                    children.setdefault(process.ppid(), []).append(process)
            _walk(self._root, "gateway", children, found)
        self.seen.update(((process.pid, process.started), process) for process in found)
        return found

    def of(self, role: Role) -> list[Process]:
        """Those of one role."""
        return [process for process in self.now() if process.role == role]

    def left(self) -> dict[int, Role]:
        """Those ever seen that are still there."""
        return {process.pid: process.role for process in self.seen.values() if process.lives()}


def _walk(
    process: psutil.Process, role: Role, children: Mapping[int, Sequence[psutil.Process]], found: list[Process]
) -> None:
    """`children`: by the parent's process id."""
    try:
        started = process.create_time()
        if process.status() == psutil.STATUS_ZOMBIE:
            return
    except psutil.NoSuchProcess:
        return
    found.append(Process(process.pid, started, role))
    for child in children.get(process.pid, ()):
        _walk(child, _role(child, role), children, found)


def _role(process: psutil.Process, parent: Role) -> Role:
    if parent in _FORKED:
        return _FORKED[parent]
    if parent == "zygote":
        return "instance" if _has_duty(process.pid) else "worker"
    return next((_MODULES[word] for word in command(process) if word in _MODULES), "other")


def _has_duty(pid: int) -> bool:
    try:
        return _RECORDS in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def marked(marker: str) -> Iterator[int]:
    """Process ids of whoever has `marker` in its environment or among its arguments, but for this process."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with suppress(OSError):
                texts = [Path(f"/proc/{name}/{file}").read_bytes() for file in ("environ", "cmdline")]
                if any(marker.encode() in text for text in texts):
                    yield int(name)
