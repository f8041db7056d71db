"""The daemon: starts, stops and counts instances. Calls go from orchestrators to instances directly.

It is small, since it imports nothing that functions need; the zygote does, and forks for it. Its standard input is a
socket (`daemon_process`). The daemon ends, and with it every other process of the pool, when that closes, and also when
nothing has run for long: who holds the listening socket starts another as soon as somebody connects to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from faasmoe.errors import MessageError
from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.local.daemon import hibernation
from faasmoe.platforms.local.daemon.lifecycle import Lifecycle
from faasmoe.platforms.local.daemon.pool import FunctionState, Pool, resolved
from faasmoe.platforms.local.daemon.zygote_client import ZygoteClient
from faasmoe.platforms.local.daemon.zygote_process import first_then_new
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.protocol import messages, supervision, wire
from faasmoe.platforms.local.protocol.messages import SOCKET, RequestRefused
from faasmoe.platforms.local.protocol.public_text import public
from faasmoe.util import logs
from faasmoe.util.failure_log import FailureLog, reason_of
from faasmoe.util.forkserver.server_process import ServerProcess

log = logging.getLogger(__name__)

_FUNCTIONS = "functions.json"
_CLOSE_SECONDS = 3.0
_LONGEST_TROUBLE = 300  # characters

_T = TypeVar("_T")


class Daemon:
    """Answers control messages."""

    def __init__(
        self,
        folder: Path,
        options: LocalOptions,
        supervisor: socket.socket,
        *,
        lifecycle: Callable[[Pool, Path, LocalOptions, Callable[[], None]], Lifecycle] = Lifecycle,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`supervisor`: a socket (see `supervision`). `clock` gives nanoseconds."""
        supervisor.setblocking(False)
        self._supervisor = supervisor
        self._failures = FailureLog(log)
        self._folder = folder
        self._options = options
        self._pool = Pool(options.memory_budget)
        self._stopping = asyncio.Event()
        self._unneeded = asyncio.Event()
        self._clock = clock
        self._life = lifecycle(self._pool, folder, options, self._unneeded.set)

    async def serve(self, listener: socket.socket) -> None:
        """Run until standard input closes, or until nothing has run for long (`LocalOptions.zygote_keep_alive`)."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        loop.add_reader(self._supervisor, self._asked)
        await self._restore()
        server = await asyncio.start_server(self._connected, sock=listener, limit=wire.MAX_MESSAGE)
        self._life.spawn(self._life.prepare())
        self._life.spawn(self._life.watch.run())
        self._supervisor.send(supervision.pack(supervision.Ready()))
        ends = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._unneeded)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        server.close()
        await self._life.close(_CLOSE_SECONDS)
        if not self._stopping.is_set():
            try:
                hibernation.leave(self._folder, self._pool, self._clock())
            except OSError as error:
                log.error("what was counted is lost: %s", reason_of(error))

    def _asked(self) -> None:
        """The supervisor wants to know whether we live, or wants us to end."""
        try:
            if packet := self._supervisor.recv(supervision.LARGEST_PACKET):
                supervision.read_request(packet)
                trouble = " ".join(self._life.trouble.split())[:_LONGEST_TROUBLE]
                self._supervisor.send(supervision.pack(supervision.HealthReport(trouble)))
                return
        except BlockingIOError:  # it does not read what it asks for
            return
        except (OSError, MessageError) as error:
            log.debug("supervisor: %s", error)
        asyncio.get_running_loop().remove_reader(self._supervisor)
        self._stopping.set()

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio's own loops and callbacks could not do, such as accepting a connection without descriptors."""
        error = context.get("exception")
        if error is not None and not isinstance(error, OSError):
            log.error("a defect", exc_info=error)
        else:
            self._failures.failed(str(context.get("message")), error or "")

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._life.spawn(self._client(reader, writer))  # asyncio's own task would be logged when it is cancelled

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        activations: set[asyncio.Task[None]] = set()
        try:
            while True:
                text = await reader.readexactly(wire.length_of(await reader.readexactly(wire.HEAD)))
                try:
                    request = messages.read_request(text)
                except messages.NotUnderstood as error:  # the client may learn what is wrong with it
                    await self._reply(writer, messages.PlatformFailed(public(str(error))))
                    continue
                if isinstance(request, messages.Activate):
                    for wanted in request.wanted:
                        task = self._life.spawn(self._activate(writer, wanted, request.seconds))
                        activations.add(task)
                        task.add_done_callback(activations.discard)
                elif isinstance(request, messages.Suspect):
                    if running := self._pool.instances.get(request.path):
                        self._life.watch.suspect(running, request.expected)
                else:
                    await self._reply(writer, await self._answer(request))
        except (asyncio.IncompleteReadError, OSError, wire.Lost) as error:
            log.debug("control connection ended: %s", error)
        finally:
            for task in list(activations):  # nobody waits for these any more
                task.cancel()
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, reply: messages.Reply) -> None:
        writer.write(messages.pack(reply))
        await writer.drain()

    async def _answer(self, request: messages.Question) -> messages.Reply:
        try:
            return await self._carry_out(request)
        except RequestRefused as error:
            return error.error
        except OSError as error:
            return messages.PlatformFailed(f"{type(error).__name__}: {reason_of(error)}")
        except ValueError as error:
            return messages.PlatformFailed(public(f"{type(error).__name__}: {error}"))

    async def _carry_out(self, request: messages.Question) -> messages.Reply:
        match request:
            case messages.AskStatus():
                return messages.PoolReport(self._pool.status(self._clock()))
            case messages.Deploy():
                await self._deploy(request.functions)
            case messages.Remove():
                await self._remove(request.names)
            case messages.Stop():
                await self._life.stop(self._named(request.names))
            case messages.Fits():
                await self._fits(request)
            case messages.Prewarm():
                names = [function.spec.name for function in self._named(request.names)]
                await self._within(request.seconds, asyncio.gather(*map(self._life.prewarm, names)))
            case messages.Stuck():
                if running := self._pool.instances.get(request.path):
                    self._life.stuck(running, request.seconds)
        return messages.Completed()

    async def _deploy(self, specs: Sequence[FunctionSpec]) -> None:
        await self._life.install([resolved(spec, self._options.keep_alive) for spec in specs])
        self._save()

    async def _remove(self, names: Sequence[str]) -> None:
        functions = self._named(names)
        for function in functions:
            self._pool.functions.pop(function.spec.name, None)
        self._save()
        await self._life.stop(functions)

    def _named(self, names: Sequence[str]) -> list[FunctionState]:
        return [self._pool.function(name) for name in names]

    def _save(self) -> None:
        """So that a new daemon in this folder knows the functions of the one before."""
        raw = json.dumps(messages.plain([function.spec for function in self._pool.functions.values()]))
        draft = self._folder / f"{_FUNCTIONS}.new"
        draft.write_text(raw)
        draft.rename(self._folder / _FUNCTIONS)

    async def _restore(self) -> None:
        for leftover in self._folder.glob("*.sock"):
            if leftover.name != SOCKET:
                leftover.unlink()
        with suppress(FileNotFoundError):
            known = json.loads((self._folder / _FUNCTIONS).read_text())
            await self._life.install(messages.read(known, list[FunctionSpec]))
        hibernation.take_up(self._folder, self._pool)

    async def _within(self, seconds: float, work: Awaitable[_T]) -> _T:
        """Raises `RequestRefused` if it is not done within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise RequestRefused(messages.DeadlinePassed(self._why_waiting())) from None

    async def _fits(self, request: messages.Fits) -> None:
        self._named(request.names)
        if self._pool.budget is None:
            return
        await self._within(request.seconds, self._life.zygote_ready())
        least = self._pool.least(request.names)
        if least > self._pool.budget:
            raise RequestRefused(messages.BudgetTooSmall(least, self._pool.own))

    async def _activate(self, writer: asyncio.StreamWriter, wanted: messages.Wanted, seconds: float) -> None:
        answer: messages.Activation
        try:
            if wanted.lost in self._pool.instances:  # its caller knows of its end before we do
                self._life.drain(self._pool.instances[wanted.lost])
            running = await self._within(seconds, self._life.obtain(wanted.function))
            running.promise(self._clock())
            answer = messages.Activated(
                number=wanted.number,
                path=running.path,
                scalable=running.function.spec.max_instances > 1,
                memory=running.charge,
                last_end=running.function.last_end,
                scarce=self._life.scarce_lately,
            )
        except RequestRefused as error:
            answer = messages.NotActivated(wanted.number, error.error)
        except OSError as error:  # whoever asked must not wait in vain
            self._failures.failed("an instance was not started", error)
            answer = messages.NotActivated(wanted.number, messages.PlatformFailed(reason_of(error)))
        if not writer.is_closing():  # else nobody waits for it any more
            writer.write(messages.pack(answer))

    def _why_waiting(self) -> str:
        pool = self._pool
        if self._life.trouble:
            return self._life.trouble
        if pool.budget is None:
            return "the platform was still starting"
        busy = sum(not running.draining for running in pool.instances.values())
        return (
            f"the memory budget of {pool.budget} bytes is full: {busy} instances take {pool.used - pool.own} bytes"
        )


def run(arguments: Sequence[str], zygote: ServerProcess | None) -> None:
    """Serve until standard input closes, or nobody needs it. `zygote`: the first, if it was started already."""
    folder, listener, options = arguments
    logs.inherit("platform")
    supervisor = socket.socket(fileno=sys.stdin.fileno())
    lifecycle = partial(Lifecycle, zygote=partial(ZygoteClient, spawn=first_then_new(zygote)))
    daemon = Daemon(Path(folder), LocalOptions.from_json(options), supervisor, lifecycle=lifecycle)
    asyncio.run(daemon.serve(socket.socket(fileno=int(listener))))
