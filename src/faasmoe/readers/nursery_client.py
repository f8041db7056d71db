"""The gateway's end of the nursery: starts it, again when it is gone, and has it fork readers."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import subprocess
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from faasmoe.errors import CheckpointError, MessageError
from faasmoe.readers.messages import (
    LARGEST,
    LARGEST_PACKET,
    LENGTH,
    Answer,
    Ended,
    Failed,
    Fork,
    Forked,
    Kill,
    Load,
    Loaded,
    ToNursery,
    pack,
    read_answer,
    read_event,
)
from faasmoe.readers.progress import Overdue, Stalled, watched
from faasmoe.util.processes import start

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOAD_SECONDS = 120.0  # importing from a slow disk included
_FORK_SECONDS = 10.0
_END_SECONDS = 2.0
_STDERR = 2
_OWN = {
    "OMP_NUM_THREADS": "1",  # no threads before forks
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": f"{128 << 10}",  # what a long body needs goes back to the kernel
    "MALLOC_TRIM_THRESHOLD_": f"{128 << 10}",
    "HF_HUB_OFFLINE": "1",
}


class Lost(Exception):
    """A reader, or the nursery, is gone. The message says why."""


class Reader:
    """The gateway's hold on one reader."""

    def __init__(
        self,
        number: int,
        pid: int,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        ended: asyncio.Future[int],
    ) -> None:
        self.number = number
        self.pid = pid
        self.ended = ended  # exit status, or minus the signal that killed it
        self._reader, self._writer = streams

    async def ask(self, job: bytes) -> Answer:
        """The answer to a framed job. Raises `Lost`."""
        try:
            self._writer.write(job)
            await self._writer.drain()
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > LARGEST:
                raise Lost(f"a message of {length} bytes was announced")
            return read_answer(await self._reader.readexactly(length))
        except (OSError, EOFError, MessageError) as error:
            raise Lost(str(error) or type(error).__name__) from error

    def hang_up(self) -> None:
        """Want nothing more of it: it ends."""
        self._writer.transport.abort()


class NurseryClient:
    """For one asyncio loop. `begin` may be called before `load`, so that imports are done by then."""

    def __init__(self) -> None:
        self._load: Load | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._loaded: asyncio.Future[None] | None = None
        self._forked: dict[int, asyncio.Future[int]] = {}  # number to process id
        self._ended: dict[int, asyncio.Future[int]] = {}  # number to exit status
        self._writers: dict[int, asyncio.StreamWriter] = {}  # to readers that run, whoever holds them
        self._numbers = itertools.count()

    @property
    def pid(self) -> int | None:
        """Of its process, None if there is none."""
        return self._process.pid if self._process else None

    def begin(self) -> None:
        """Have a process, which imports what it needs. Does not wait. Raises `Lost` if none can be started."""
        if self._process is not None:
            return
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise Lost(f"it cannot be started: {error.strerror}") from error
        with theirs:
            try:
                self._process = start(
                    "faasmoe.readers.nursery",
                    [str(theirs.fileno()), str(os.getpid())],
                    stdout=_STDERR,  # what a library prints must not get among our own output
                    descriptors=[theirs.fileno()],
                    more=_OWN,
                )
            except OSError as error:
                ours.close()
                raise Lost(f"it cannot be started: {error.strerror}") from error
        ours.setblocking(False)
        self._socket = ours
        loop = asyncio.get_running_loop()
        self._loaded = loop.create_future()
        loop.add_reader(ours, self._hear, ours)
        if self._load is not None:
            self._send(self._load)

    def load(self, load: Load) -> None:
        """What readers are to have. Raises `Lost`."""
        self._load = load
        if self._process is not None:
            self._send(load)

    async def ready(self) -> None:
        """Returns when readers can be forked. Raises `Lost`, or `CheckpointError` if the tokenizer cannot be used."""
        self.begin()
        assert self._loaded is not None  # noqa: S101 - for the type checker
        await self._watched(_of(self._loaded), _LOAD_SECONDS)

    async def fork(self, niceness: int) -> Reader:
        """A reader that takes jobs. Raises as `ready` does."""
        await self.ready()
        return await self._watched(self._fork(niceness), _FORK_SECONDS)

    async def _watched(self, work: Coroutine[None, None, T], seconds: float) -> T:
        process = self._process
        try:
            return await watched(work, lambda: self.pid, seconds)
        except (Stalled, Overdue) as error:
            if self._process is process:
                self.reset(str(error))
            raise Lost(str(error)) from None

    async def end(self, reader: Reader) -> int | None:
        """Make sure that a reader is gone. Returns its exit status, None if nobody can tell it."""
        reader.hang_up()
        self._kill(reader.number)
        await asyncio.wait([reader.ended], timeout=_END_SECONDS)
        if not reader.ended.done():
            self.reset("it does not end readers")
            return None
        return None if reader.ended.cancelled() else reader.ended.result()

    async def leave(self, reader: Reader) -> None:
        """Let a reader end by itself, which has said that it will."""
        reader.hang_up()
        await asyncio.wait([reader.ended], timeout=_END_SECONDS)
        if not reader.ended.done():
            await self.end(reader)

    def reset(self, reason: str) -> None:
        """End the nursery, and with it all readers. The next `fork` starts another."""
        if self._process is not None:
            log.warning("the process that forks readers is ended, another is started: %s", reason)
        self.close()

    def close(self) -> None:
        """End the nursery, and with it all readers. May be called twice."""
        if self._socket is None or self._process is None or self._loaded is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._process.kill()  # the kernel kills its children with it
        self._process.wait()
        _fail(self._loaded, Lost("the process that forks readers has ended"))
        for forked in self._forked.values():
            _fail(forked, Lost("the process that forks readers has ended"))
        for ended in self._ended.values():
            ended.cancel()
        for writer in self._writers.values():  # whoever asked for a reader may have gone before it came
            writer.transport.abort()
        self._writers.clear()
        self._forked.clear()
        self._ended.clear()
        self._socket = self._process = self._loaded = None

    async def _fork(self, niceness: int) -> Reader:
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        forked: asyncio.Future[int] = loop.create_future()
        ended: asyncio.Future[int] = loop.create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            try:
                streams = await asyncio.open_unix_connection(sock=ours)
            except BaseException:
                ours.close()
                raise
            self._forked[number], self._ended[number] = forked, ended
            self._writers[number] = streams[1]
            try:
                self._send(Fork(number, niceness), theirs.fileno())
                theirs.close()  # the end of the reader is the end of its connection
                return Reader(number, await asyncio.shield(forked), streams, ended)
            except BaseException:
                streams[1].transport.abort()
                self._kill(number)
                raise
            finally:
                self._forked.pop(number, None)

    def _kill(self, number: int) -> None:
        if self._process is not None and number in self._ended:
            with suppress(Lost):  # then readers end with it
                self._send(Kill(number))

    def _send(self, order: ToNursery, *descriptors: int) -> None:
        """Raises `Lost`."""
        if self._socket is None:
            raise Lost("the process that forks readers has ended")
        try:
            socket.send_fds(self._socket, [pack(order)], descriptors)
        except OSError as error:
            raise Lost(f"the process that forks readers takes no orders: {error.strerror}") from error

    def _hear(self, sock: socket.socket) -> None:
        try:
            packet = sock.recv(LARGEST_PACKET)
            event = read_event(packet) if packet else None
        except BlockingIOError:
            return
        except (OSError, MessageError) as error:
            log.error("from the process that forks readers: %s", error)
            event = None
        if isinstance(event, Forked):
            _tell(self._forked.get(event.number), event.pid)
        elif isinstance(event, Ended):
            if forked := self._forked.get(event.number):
                _fail(forked, Lost("no reader can be forked"))
            self._writers.pop(event.number, None)
            _tell(self._ended.pop(event.number, None), event.status)
        elif isinstance(event, Loaded):
            _tell(self._loaded, None)
        elif isinstance(event, Failed):
            if self._loaded is not None:
                _fail(self._loaded, CheckpointError(event.message))
        else:
            self.reset("it has ended")


async def _of(future: asyncio.Future[None]) -> None:
    await asyncio.shield(future)


def _tell(future: asyncio.Future[Any] | None, value: Any) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # somebody may wait for it, or nobody
