"""The daemon's end of the zygote: starts it when it is needed, gives it orders, hears what happens to its children."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faasmoe.platforms.local import wire

log = logging.getLogger(__name__)

_START_SECONDS = 120.0  # importing from a slow disk included
_STALL_SECONDS = 10.0
SPARES = 2  # blank children that the zygote keeps
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # compute threads of an instance; parallelism comes from instances
    "MALLOC_ARENA_MAX": "1",  # what is freed is found again
    "MALLOC_MMAP_THRESHOLD_": f"{128 << 10}",  # what a prompt needs goes back to the kernel; by default glibc's
    "MALLOC_TRIM_THRESHOLD_": f"{128 << 10}",  # thresholds grow with what is freed
}

Event = Callable[[dict[str, Any] | None], None]


class ZygoteFailed(Exception):
    """It could not be started."""


class ZygoteClient:
    """`listener` hears of each event (`zygote.Zygote`), and None when the zygote has ended."""

    def __init__(self, modules: Sequence[str], listener: Event) -> None:
        self._modules = modules
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None

    async def ready(self) -> None:
        """Returns when orders are taken; starts the zygote if there is none. Raises `ZygoteFailed`."""
        if self._ready is None:
            self._start()
        assert self._ready is not None  # noqa: S101 - for the type checker
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.shield(self._ready)
        except TimeoutError:
            self.close()
            raise ZygoteFailed(
                f"the process that forks instances was not ready within {_START_SECONDS} s"
            ) from None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(_STALL_SECONDS)
        command = [sys.executable, "-m", "faasmoe.platforms.local.zygote"]
        command += [str(theirs.fileno()), str(os.getpid()), str(SPARES), *self._modules]
        environment = {**os.environ, **_ENVIRONMENT}
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        self._socket = ours
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        loop.add_reader(ours, self._hear, ours)

    def send(self, order: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Give an order. If the zygote is gone, its listener hears of that."""
        if self._socket is None:
            return
        try:
            wire.send(self._socket, order, fds)
        except TimeoutError:
            log.error("the process that forks instances takes no orders; another is started")
            self.close()
        except wire.Lost:
            return  # we are about to hear of its end

    def memory(self) -> int:
        """Bytes that the zygote and this process have in memory."""
        pids = [os.getpid(), *([self._process.pid] if self._process else [])]
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
        return sum(pages) * os.sysconf("SC_PAGESIZE")

    def close(self) -> None:
        """End the zygote and whatever it has forked."""
        if self._socket is None or self._process is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._process.kill()  # the kernel kills its children with it
        status = self._process.wait()
        if self._ready and not self._ready.done():
            message = f"the process that forks instances ended with status {status}; its messages say why"
            self._ready.set_exception(ZygoteFailed(message))
            self._ready.exception()  # somebody may wait for it, or nobody
        self._socket = self._process = self._ready = None
        self._listener(None)

    def _hear(self, sock: socket.socket) -> None:
        try:
            event, _ = wire.receive(sock)
        except (wire.Lost, TimeoutError):
            log.warning("the process that forks instances has ended; it is started again when it is needed")
            self.close()
            return
        if event["event"] == "ready":
            if self._ready and not self._ready.done():
                self._ready.set_result(None)
        else:
            self._listener(event)
