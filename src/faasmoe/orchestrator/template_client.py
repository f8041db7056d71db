"""The gateway's end of the template: starts it when it is needed, and has it fork orchestrators."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial

from faasmoe.errors import EngineStopped, FaasmoeError, MessageError
from faasmoe.orchestrator.child import Child
from faasmoe.orchestrator.config import About
from faasmoe.orchestrator.link import Link
from faasmoe.orchestrator.messages import (
    LARGEST_PACKET,
    Ended,
    Fork,
    Kill,
    Prepared,
    Start,
    error_of,
    pack,
    read_template_answer,
)

log = logging.getLogger(__name__)

_LOAD_SECONDS = 3600.0  # a large model is quantised, or its dense part converted, from a slow disk
_STDERR = 2
# no threads before forks; an arena a thread would be memory that nobody finds again
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}


class TemplateClient:
    """For one asyncio loop. Nothing runs before `ready` or `launch`, and after `close` until the next of these."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._about: asyncio.Future[About] | None = None  # of the one that runs
        self._children: dict[int, asyncio.Future[int]] = {}  # number to exit status
        self._numbers = itertools.count()

    @property
    def running(self) -> bool:
        """Whether there is a process, ready or not."""
        return self._process is not None

    def begin(self) -> None:
        """Have the model loaded, if it is not. Does not wait."""
        if self._about is None:
            self._about = asyncio.get_running_loop().create_future()
            self._spawn()

    async def ready(self) -> About:
        """Returns when orchestrators can be forked. Raises the `UserError` or `EngineStopped` that is in the way."""
        self.begin()
        assert self._about is not None  # noqa: S101 - for the type checker
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                return await asyncio.shield(self._about)
        except TimeoutError:
            self.close()
            raise EngineStopped(f"the model was not loaded within {_LOAD_SECONDS:g} s") from None

    async def launch(self) -> Child:
        """An orchestrator that takes requests. Raises what it cannot start for."""
        await self.ready()
        number, ended = next(self._numbers), asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            link = await Link.over(ours)
            self._children[number] = ended
            try:
                self._send(Fork(number), theirs.fileno())
            except BaseException:
                self._children.pop(number, None)
                await link.close()
                raise
        child = Child(link, ended, partial(self._kill, number))
        try:
            await child.ready()
        except BaseException as error:
            status = await child.end()
            if not ended.done():  # it forks no more, and does not kill either
                self.close()
            if isinstance(error, EngineStopped):
                raise EngineStopped(f"{error} ({status})") from error
            raise
        return child

    def _kill(self, number: int) -> None:
        with suppress(EngineStopped):  # then it is gone with the template
            self._send(Kill(number))

    def close(self) -> None:
        """End the template, and with it whatever it has forked. May be called twice."""
        self._fail(EngineStopped("the process that forks orchestrators was ended"))

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "faasmoe.orchestrator.template", str(theirs.fileno()), str(os.getpid())]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=_STDERR,  # what a library prints must not get among our own output
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **ENVIRONMENT},
                )
            except BaseException:
                ours.close()
                self._about = None
                raise
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._hear, ours)
        self._send(self._start)

    def _send(self, order: Start | Fork | Kill, *descriptors: int) -> None:
        """Raises `EngineStopped` if the template is gone or takes no orders."""
        if self._socket is None:
            raise EngineStopped("the process that forks orchestrators has ended")
        try:
            socket.send_fds(self._socket, [pack(order)], descriptors)
        except OSError as error:
            raise EngineStopped(
                f"the process that forks orchestrators takes no orders: {error.strerror}"
            ) from error

    def _hear(self, sock: socket.socket) -> None:
        try:
            packet = sock.recv(LARGEST_PACKET)
            message = read_template_answer(packet) if packet else None
        except BlockingIOError:
            return
        except (OSError, MessageError) as error:
            log.error("from the process that forks orchestrators: %s", error)
            message = None
        if isinstance(message, Ended):
            if ended := self._children.pop(message.number, None):
                ended.set_result(message.status)
        elif isinstance(message, Prepared):
            assert self._about is not None  # noqa: S101 - for the type checker
            self._about.set_result(message.about)
        elif message is None:
            self._fail(EngineStopped("the process that forks orchestrators has ended"))
        else:
            self._fail(error_of(message.error))

    def _fail(self, error: FaasmoeError) -> None:
        """There is none any more, for this reason."""
        if self._socket is None or self._process is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._process.kill()  # the kernel kills its children with it
        self._process.wait()
        about, self._about = self._about, None
        self._socket = self._process = None
        if about and not about.done():
            about.set_exception(error)
            about.exception()  # somebody may wait for it, or nobody
        for ended in self._children.values():
            ended.set_result(-signal.SIGKILL)
        self._children.clear()
