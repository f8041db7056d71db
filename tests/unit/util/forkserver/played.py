"""A fork server whose part is played over its socket by a test."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from typing import cast

from faasmoe.util.forkserver.messages import LARGEST_PACKET, Event, Order, pack, read_order
from faasmoe.util.forkserver.server_process import ServerProcess


class PlayedServer:
    """What `spawn` starts in the place of a process."""

    pid = os.getpid()

    def __init__(self, status: int = -signal.SIGKILL) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.returncode = status
        self.stopped = False  # for tests that say what the kernel tells of the process
        self.kills = 0
        self.descriptors = 0  # that came with the last order

    def spawn(self, *_: object) -> ServerProcess:
        """In place of `server_process.spawn`."""
        self.socket.close()
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        return ServerProcess(cast("subprocess.Popen[bytes]", self), ours)

    def order(self) -> Order:
        """The next order. Raises `BlockingIOError` if there is none."""
        packet, fds, _, _ = socket.recv_fds(self.socket, LARGEST_PACKET, 8)
        for fd in fds:
            os.close(fd)
        self.descriptors = len(fds)
        return read_order(packet)

    async def say(self, *events: Event | bytes) -> None:
        """Send, and have the client hear it."""
        for event in events:
            self.socket.send(event if isinstance(event, bytes) else pack(event))
        await settle()

    async def leave(self) -> None:
        """Hang up, and have the client hear it."""
        self.socket.shutdown(socket.SHUT_RDWR)
        await settle()

    def kill(self) -> None:
        self.kills += 1

    def wait(self, timeout: float) -> int:
        return self.returncode


async def settle() -> None:
    """Let everything run that need not wait."""
    for _ in range(10):
        await asyncio.sleep(0)
