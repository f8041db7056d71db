"""The gateway's end of the readers' fork server: starts it, again when it is gone, and has it fork readers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TypeVar

from faasmoe.errors import CheckpointError, EngineStopped, FaasmoeError, MessageError, ProcessLost
from faasmoe.readers.messages import (
    LARGEST,
    LENGTH,
    Answer,
    ReaderOptions,
    ReaderSetup,
    pack,
    read_answer,
    read_setup_failure,
)
from faasmoe.util.failure_log import reason_of
from faasmoe.util.forkserver.client import ForkServerClient
from faasmoe.util.forkserver.server_process import spawn
from faasmoe.util.watchdog import Overdue, Stalled, watched

log = logging.getLogger(__name__)

T = TypeVar("T")

_NAME = "process that forks readers"
_MODULE = "faasmoe.readers.fork_server"
_LOAD_SECONDS = 120.0  # importing from a slow disk included
_FORK_SECONDS = 10.0
_END_SECONDS = 2.0
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # no threads before forks
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": f"{128 << 10}",  # what a long body needs goes back to the kernel
    "MALLOC_TRIM_THRESHOLD_": f"{128 << 10}",
    "HF_HUB_OFFLINE": "1",
}


class Reader:
    """The gateway's hold on one reader."""

    def __init__(
        self,
        pid: int,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        ended: asyncio.Future[int],
        kill: Callable[[], None],
    ) -> None:
        self.pid = pid
        self.ended = ended  # exit status, or minus the signal that killed it
        self.kill = kill  # does nothing if it has ended
        self._reader, self._writer = streams

    async def ask(self, job: bytes) -> Answer:
        """The answer to a framed job. Raises `ProcessLost`."""
        try:
            self._writer.write(job)
            await self._writer.drain()
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > LARGEST:
                raise ProcessLost(f"a message of {length} bytes was announced")
            return read_answer(await self._reader.readexactly(length))
        except (OSError, EOFError, MessageError) as error:
            raise ProcessLost(str(error) or type(error).__name__) from error

    def hang_up(self) -> None:
        """Close the connection: the reader ends."""
        self._writer.transport.abort()


class ReaderLauncher:
    """For one asyncio loop. `begin` may be called before `load`, so that imports are done by then."""

    def __init__(self) -> None:
        self._setup: ReaderSetup | None = None
        self._server: ForkServerClient[None] | None = None
        self._writers: dict[int, asyncio.StreamWriter] = {}  # to readers that run, whoever holds them

    @property
    def pid(self) -> int | None:
        """Process id of the fork server, None if there is none."""
        return self._server.pid if self._server else None

    def begin(self) -> None:
        """Have a fork server, which imports what it needs. Does not wait.

        Raises `ProcessLost` if none can be started.
        """
        if self._server is not None:
            return
        try:
            self._server = ForkServerClient(
                name=_NAME,
                role="reader",
                spawn=partial(spawn, _MODULE, _ENVIRONMENT),
                decode=lambda _: None,
                decode_error=lambda payload: CheckpointError(read_setup_failure(payload).message),
                on_end=self._ended,
            )
        except OSError as error:
            raise ProcessLost(f"the {_NAME} cannot be started: {reason_of(error)}") from error
        if self._setup is not None:
            self._server.load(pack(self._setup))

    def load(self, setup: ReaderSetup) -> None:
        """Set what readers are to have. Raises `ProcessLost`."""
        self._setup = setup
        if self._server is not None:
            self._server.load(pack(setup))

    async def ready(self) -> None:
        """Return when readers can be forked.

        Raises `ProcessLost`, or `CheckpointError` if the tokenizer cannot be used.
        """
        await self._watched(_of(self._running().loaded), _LOAD_SECONDS)

    async def fork(self, niceness: int) -> Reader:
        """A reader that takes jobs. Raises as `ready` does."""
        await self.ready()
        return await self._watched(self._fork(niceness), _FORK_SECONDS)

    def _running(self) -> ForkServerClient[None]:
        self.begin()
        assert self._server is not None  # noqa: S101 - for the type checker
        return self._server

    async def _watched(self, work: Coroutine[None, None, T], seconds: float) -> T:
        server = self._server
        try:
            return await watched(work, lambda: self.pid, seconds)
        except (Stalled, Overdue) as error:
            if self._server is server:
                self.reset(str(error))
            raise ProcessLost(str(error)) from None

    async def end(self, reader: Reader) -> int | None:
        """Make sure that a reader is gone. Returns its exit status, None if nobody can tell it."""
        reader.hang_up()
        reader.kill()
        await asyncio.wait([reader.ended], timeout=_END_SECONDS)
        if not reader.ended.done():
            self.reset("it does not end readers")
            return None
        return reader.ended.result()

    async def leave(self, reader: Reader) -> None:
        """Let a reader end by itself, which has said that it will."""
        reader.hang_up()
        await asyncio.wait([reader.ended], timeout=_END_SECONDS)
        if not reader.ended.done():
            await self.end(reader)

    def reset(self, reason: str) -> None:
        """End the fork server because of `reason`, and with it all readers. The next `fork` starts another."""
        if self._server is not None:
            self._server.end(ProcessLost(f"the {_NAME} was ended: {reason}"))

    def close(self) -> None:
        """End the fork server, and with it all readers. May be called twice."""
        if self._server is not None:
            self._server.end(EngineStopped(f"the {_NAME} was ended"))

    def _ended(self, error: FaasmoeError, _: int | None) -> None:
        """The fork server has ended because of `error`, and with it all readers."""
        if isinstance(error, ProcessLost):
            log.warning("%s; the next reader starts another", error)
        for writer in self._writers.values():  # whoever asked for a reader may have gone before it came
            writer.transport.abort()
        self._writers.clear()
        self._server = None

    async def _fork(self, niceness: int) -> Reader:
        server = self._running()
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            try:
                streams = await asyncio.open_unix_connection(sock=ours)
            except BaseException:
                ours.close()
                raise
            try:
                child = server.fork([theirs.fileno()], pack(ReaderOptions(niceness)))
            except BaseException:
                streams[1].transport.abort()
                raise
        # `theirs` is closed: the end of the reader is the end of its connection
        kill = partial(server.kill, child.number)
        self._writers[child.number] = streams[1]
        child.ended.add_done_callback(lambda _: self._writers.pop(child.number, None))
        try:
            return Reader(await asyncio.shield(child.pid), streams, child.ended, kill)
        except BaseException:
            streams[1].transport.abort()
            kill()
            raise


async def _of(future: asyncio.Future[None]) -> None:
    await asyncio.shield(future)
