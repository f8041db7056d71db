"""The process that has imported what functions need, and forks instances.

It obeys the daemon over a socket that it inherits, and ends when that closes. A few children are forked ahead of time
and wait for a duty, so that an activation does not wait for a fork.

    python -m faasmoe.platforms.local.zygote DESCRIPTOR PARENT SPARES MODULE...
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faasmoe import logs
from faasmoe.children import Children, die_with_parent
from faasmoe.platforms.local import frame, wire
from faasmoe.platforms.local.sandbox import Sandbox, prepare
from faasmoe.platforms.local.spare import live
from faasmoe.starting import importing

log = logging.getLogger(__name__)

_ASSIGN_SECONDS = 5.0
_AGAIN_MS = 500.0  # after a fork that failed
_MADV_COLLAPSE = 25  # linux/mman.h
_HUGE = 2 << 20


@dataclass
class Spare:
    """A blank child, waiting for its duty."""

    pid: int
    assignment: socket.socket


class Zygote:
    """Forks, reaps, and tells the daemon about both."""

    def __init__(
        self, daemon: socket.socket, spares: int, sandbox: Sandbox, warm_up: Sequence[Callable[[], None]]
    ) -> None:
        self._daemon = daemon
        self._wanted = spares
        self._sandbox = sandbox
        self._warm_up = warm_up
        self._spares: list[Spare] = []
        self._instances: set[int] = set()  # process ids
        self._children = Children()

    def serve(self) -> None:
        """Run until the daemon closes its end."""
        poll = select.poll()
        poll.register(self._daemon, select.POLLIN)
        poll.register(self._children, select.POLLIN)
        wire.send(self._daemon, {"event": "ready"})
        pause = 0.0  # milliseconds; a pending order comes before new spares
        while True:
            for fd, _ in poll.poll(pause if len(self._spares) < self._wanted else None) or [(-1, 0)]:
                if fd == self._daemon.fileno():
                    self._obey(*wire.receive(self._daemon))
                elif fd == self._children.fileno():
                    self._reap()
                else:
                    pause = self._add_spare()

    def _add_spare(self) -> float:
        """Returns milliseconds to wait before the next."""
        try:
            self._spares.append(self._fork())
        except OSError as error:
            log.warning("no spare child: %s", error)
            return _AGAIN_MS
        return 0.0

    def _obey(self, order: dict[str, Any], fds: list[int]) -> None:
        try:
            if order["operation"] == "start":
                self._start(order, fds)
            elif order["pid"] in self._instances:  # else it has ended, and its id may be another's
                os.kill(order["pid"], signal.SIGKILL)
        finally:
            frame.close_all(fds)

    def _start(self, order: dict[str, Any], fds: list[int]) -> None:
        while True:
            try:
                spare = self._spares.pop(0) if self._spares else self._fork()
            except OSError as error:
                wire.send(self._daemon, {"event": "failed", "id": order["id"], "cause": f"fork: {error.strerror}"})
                return
            with spare.assignment:
                self._instances.add(spare.pid)
                try:
                    wire.send(spare.assignment, order, fds)
                except (wire.Lost, TimeoutError):  # somebody killed it
                    self._instances.discard(spare.pid)
                    continue
            wire.send(self._daemon, {"event": "started", "id": order["id"], "pid": spare.pid})
            return

    def _fork(self) -> Spare:
        parent = os.getpid()
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            self._children.leave()
            for fd in (self._daemon.fileno(), ours.detach()):
                os.close(fd)
            for spare in self._spares:
                os.close(spare.assignment.detach())
            live(parent, theirs, self._sandbox, self._warm_up)
        theirs.close()
        ours.settimeout(_ASSIGN_SECONDS)
        return Spare(pid, ours)

    def _reap(self) -> None:
        for pid, code in self._children.ended():
            for spare in [spare for spare in self._spares if spare.pid == pid]:
                spare.assignment.close()
                self._spares.remove(spare)
            if pid in self._instances:
                self._instances.remove(pid)
                wire.send(self._daemon, {"event": "ended", "pid": pid, "status": code})


def join_pages() -> None:
    """Ask the kernel to hold our heap in huge pages: a fork copies one entry for 512. Helps, but is not needed."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if fields[1].startswith("rw") and (len(fields) == 5 or fields[5] == "[heap]"):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
            if start < end:
                madvise(start, end - start, _MADV_COLLAPSE)


def main() -> None:
    """Import and warm up what functions need, then serve."""
    descriptor, parent, spares, *names = sys.argv[1:]
    logs.inherit("instances")
    die_with_parent(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us decides when to end
    with importing():
        modules = [importlib.import_module(name) for name in names]
        warm_up = [module.warm_up for module in modules if hasattr(module, "warm_up")]
        for function in warm_up:
            function()
    join_pages()
    with suppress(wire.Lost):
        Zygote(socket.socket(fileno=int(descriptor)), int(spares), prepare(), warm_up).serve()


if __name__ == "__main__":
    main()
