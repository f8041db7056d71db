"""The daemon's end of the zygote: starts it when it is needed, gives it orders, hears what happens to its children."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from faasmoe.platforms.local.daemon.order_queue import OrderQueue
from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.protocol.endings import UNUSABLE, ended_by_itself
from faasmoe.util.backoff import Backoff
from faasmoe.util.complaints import Complaints, reason_of
from faasmoe.util.processes import start

log = logging.getLogger(__name__)

_START_SECONDS = 120.0  # importing from a slow disk included
_KILLED_SECONDS = 1.0  # for the kernel to end what was killed
_PAUSES = (0.1, 5.0)  # seconds before the next start after one that failed: at first, and at most
_MOST_BYTES = 1 << 16
SPARES = 2  # blank children that the zygote keeps
_STDERR = 2
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # compute threads of an instance; parallelism comes from instances
    "MALLOC_ARENA_MAX": "1",  # what is freed is found again
    "MALLOC_MMAP_THRESHOLD_": f"{128 << 10}",  # what a prompt needs goes back to the kernel; by default glibc's
    "MALLOC_TRIM_THRESHOLD_": f"{128 << 10}",  # thresholds grow with what is freed
}

Event = Callable[[dict[str, Any] | None], None]


class ZygoteFailed(Exception):
    """It can never be started as things are."""


class ZygoteClient:
    """`listener` hears of each event (`zygote.Zygote`), and None when a zygote that was ready has ended."""

    def __init__(self, modules: Sequence[str], listener: Event) -> None:
        self.trouble = ""  # why the last one ended or did not start; empty once one is ready
        self.up = False  # orders are taken
        self.owes = False  # it was asked for a sign of life that has not come
        self._modules = modules
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._orders: OrderQueue | None = None
        self._received = bytearray()
        self._attempt: asyncio.Task[None] | None = None
        self._decided: asyncio.Event = asyncio.Event()  # it is ready, or has ended
        self._unusable = False  # it has told that another start would not help
        self._closed = False
        self._backoff = Backoff(*_PAUSES)
        self._complaints = Complaints(log)

    @property
    def pid(self) -> int | None:
        """Of the process, ready or not."""
        return self._process.pid if self._process else None

    async def ready(self) -> None:
        """Returns when orders are taken. Starts the zygote as often as needed. Raises `ZygoteFailed`."""
        while not self.up:
            if self._attempt is None or self._attempt.done():
                self._attempt = asyncio.ensure_future(self._bring_up())
            await asyncio.shield(self._attempt)
            if self._unusable or self._closed:
                raise ZygoteFailed(self.trouble or "the platform is ending")

    async def _bring_up(self) -> None:
        """One attempt, after the pause that the last one has left."""
        await asyncio.sleep(self._backoff.left)
        if self._closed:
            return
        self._unusable = False
        self._decided.clear()
        try:
            self._start()
        except OSError as error:
            self._failed(f"the process that forks instances cannot be started: {reason_of(error)}")
            return
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._decided.wait()
        except TimeoutError:
            self.end(f"it was not ready within {_START_SECONDS:g} s")

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                arguments = [str(theirs.fileno()), str(os.getpid()), str(SPARES), *self._modules]
                self._process = start(
                    "faasmoe.platforms.local.instance.zygote",
                    arguments,
                    stdout=_STDERR,  # what a library prints must not get among our own output
                    descriptors=[theirs.fileno()],
                    more=_ENVIRONMENT,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._socket, self._orders, self.owes = ours, OrderQueue(ours), False
        self._received.clear()
        asyncio.get_running_loop().add_reader(ours, self._hear)

    def send(self, order: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Give an order. If the zygote is gone, its listener hears of that."""
        if self._orders is not None:
            with suppress(BrokenPipeError, ConnectionError):  # we are about to hear of its end
                self._orders.send(order, fds)

    def ping(self) -> None:
        """Ask for a sign of life: `owes` until it has come."""
        if self.up and not self.owes:
            self.owes = True
            self.send({"operation": "ping"})

    def memory(self) -> int:
        """Bytes that the zygote and this process have in memory."""
        pages = 0
        for pid in (os.getpid(), *([self._process.pid] if self._process else [])):
            with suppress(OSError):  # it has just ended
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def end(self, cause: str) -> None:
        """End the zygote, because of `cause`, and whatever it has forked."""
        if self._socket is None or self._process is None or self._orders is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._orders.close()
        self._socket.close()
        self._process.kill()  # the kernel kills its children with it
        with suppress(subprocess.TimeoutExpired):
            self._unusable = self._process.wait(_KILLED_SECONDS) == UNUSABLE
        cause = cause or ended_by_itself(self._process.returncode)
        self._socket = self._process = self._orders = None
        was_up, self.up, self.owes = self.up, False, False
        if not self._closed:
            self._failed(f"the process that forks instances was lost: {cause}")
        self._decided.set()
        if was_up:
            self._listener(None)

    def _failed(self, trouble: str) -> None:
        self.trouble = trouble
        self._complaints.note("no instance can be started now", trouble)
        self._backoff.failed()

    def close(self) -> None:
        """End it for good."""
        self._closed = True
        self.end("the platform is ending")

    def _hear(self) -> None:
        assert self._socket is not None  # noqa: S101 - it is read from while there is one
        try:
            data = self._socket.recv(_MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        try:
            while self._socket is not None and (event := wire.take(self._received)) is not None:
                self._happened(event)
            if not data:
                self.end("")
        except wire.Lost as error:
            self.end(str(error))

    def _happened(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self.up, self.trouble = True, ""
            self._decided.set()
        elif event["event"] == "alive":
            self.owes = False
        else:
            self._listener(event)
