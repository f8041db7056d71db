"""The process that has imported what functions need, and forks instances.

It obeys the daemon over a socket that it inherits, and ends when that closes. A few children are forked ahead of time
and wait for a duty, so that an activation does not wait for a fork.

    python -m faasmoe.platforms.local.instance.zygote DESCRIPTOR PARENT SPARES MODULE...
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

from faasmoe.platforms.local.instance.prefork import live
from faasmoe.platforms.local.instance.sandbox import Sandbox, prepare
from faasmoe.platforms.local.protocol import frame, wire
from faasmoe.platforms.local.protocol.endings import UNUSABLE
from faasmoe.util import logs
from faasmoe.util.backoff import Backoff
from faasmoe.util.complaints import Complaints, reason_of
from faasmoe.util.gc_freeze import importing, keep_imported
from faasmoe.util.hang import Judge, Look, look_at
from faasmoe.util.processes import Children, die_with_parent, leave_signals_to_parent

log = logging.getLogger(__name__)

_ASSIGN_SECONDS = 5.0
_PAUSES = (0.1, 5.0)  # seconds before the next spare after one that failed: at first, and at most
_MADV_COLLAPSE = 25  # linux/mman.h
_HUGE = 2 << 20
_NEVER = 1 << 30  # a spare owes nobody an answer


@dataclass
class PreforkedWorker:
    """A blank child, waiting for its duty."""

    pid: int
    assignment: socket.socket
    judge: Judge


class Zygote:
    """Forks, reaps, and tells the daemon about both."""

    def __init__(
        self,
        daemon: socket.socket,
        spares: int,
        sandbox: Sandbox,
        warm_up: Sequence[Callable[[], None]],
        look: Callable[[int, bool], Look | None] = look_at,
    ) -> None:
        self._daemon = daemon
        self._wanted = spares
        self._sandbox = sandbox
        self._warm_up = warm_up
        self._look = look
        self._spares: list[PreforkedWorker] = []
        self._instances: set[int] = set()  # process ids
        self._children = Children()
        self._backoff = Backoff(*_PAUSES)
        self._complaints = Complaints(log)

    def serve(self) -> None:
        """Run until the daemon closes its end."""
        poll = select.poll()
        poll.register(self._daemon, select.POLLIN)
        poll.register(self._children, select.POLLIN)
        wire.send(self._daemon, {"event": "ready"})
        while True:  # a pending order comes before new spares
            pause = 1000 * self._backoff.left if len(self._spares) < self._wanted else None
            for fd, _ in poll.poll(pause) or [(-1, 0)]:
                if fd == self._daemon.fileno():
                    self._obey(*wire.receive(self._daemon))
                elif fd == self._children.fileno():
                    self._reap()
                else:
                    self._add_spare()

    def _add_spare(self) -> None:
        try:
            self._spares.append(self._fork())
        except OSError as error:
            self._complaints.note("no spare child", error)
            self._backoff.failed()

    def _obey(self, order: dict[str, Any], fds: list[int]) -> None:
        try:
            if order["operation"] == "start":
                self._start(order, fds)
            elif order["operation"] == "ping":
                self._check_spares()
                wire.send(self._daemon, {"event": "alive"})
            elif order["pid"] in self._instances:  # else it has ended, and its id may be another's
                os.kill(order["pid"], signal.SIGKILL)
        finally:
            frame.close_all(fds)

    def _check_spares(self) -> None:
        """End those that hang. The daemon asks for this at regular times."""
        for spare in self._spares:
            look = self._look(spare.pid, False)
            if look and (cause := spare.judge.hangs(look, owes=False)):
                self._complaints.note("a spare child is killed", cause)
                os.kill(spare.pid, signal.SIGKILL)

    def _start(self, order: dict[str, Any], fds: list[int]) -> None:
        while True:
            try:
                spare = self._spares.pop(0) if self._spares else self._fork()
            except OSError as error:
                self._complaints.note("no instance can be forked", error)
                cause = f"no process can be forked: {reason_of(error)}"
                wire.send(self._daemon, {"event": "failed", "id": order["id"], "cause": cause})
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

    def _fork(self) -> PreforkedWorker:
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
        return PreforkedWorker(pid, ours, Judge(_NEVER, _NEVER))

    def _reap(self) -> None:
        for pid, code in self._children.ended():
            for spare in [spare for spare in self._spares if spare.pid == pid]:
                spare.assignment.close()
                self._spares.remove(spare)
                self._backoff.failed()
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
    leave_signals_to_parent()
    with importing():
        try:
            modules = [importlib.import_module(name) for name in names]
        except ImportError:
            log.exception("what functions need cannot be imported")
            sys.exit(UNUSABLE)
        keep_imported()
        warm_up = [module.warm_up for module in modules if hasattr(module, "warm_up")]
        for function in warm_up:
            function()
    join_pages()
    with suppress(wire.Lost):
        Zygote(socket.socket(fileno=int(descriptor)), int(spares), prepare(), warm_up).serve()


if __name__ == "__main__":
    main()
