"""The daemon: starts, stops and counts instances. Calls go from orchestrators to instances directly.

It is small, since it imports nothing that functions need; the zygote does, and forks for it. Its standard input is a
socket (`daemon_process`). The daemon ends, and with it every other process of the pool, when that closes, and also when
nothing has run for long: who holds the listening socket starts another as soon as somebody connects to it.

    python -m faasmoe.platforms.local.daemon.daemon FOLDER LISTENER OPTIONS
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faasmoe.platforms.local.daemon import hibernation
from faasmoe.platforms.local.daemon.lifecycle import Lifecycle
from faasmoe.platforms.local.daemon.pool import Function, Pool, deployment_from
from faasmoe.platforms.local.daemon.refused import Refused
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.protocol.public_text import public
from faasmoe.platforms.local.protocol.wire import raise_descriptor_limit
from faasmoe.platforms.local.run_folder import SOCKET
from faasmoe.util import logs
from faasmoe.util.complaints import Complaints, reason_of
from faasmoe.util.processes import leave_signals_to_parent

log = logging.getLogger(__name__)

_FUNCTIONS = "functions.json"
_CLOSE_SECONDS = 3.0
_LONGEST_TROUBLE = 300  # characters


class Daemon:
    """Answers control messages."""

    def __init__(self, folder: Path, options: LocalOptions, supervisor: socket.socket) -> None:
        """`supervisor`: see `daemon_process`."""
        supervisor.setblocking(False)
        self._supervisor = supervisor
        self._complaints = Complaints(log)
        self._folder = folder
        self._options = options
        self._pool = Pool(options.memory_budget)
        self._stopping = asyncio.Event()
        self._unneeded = asyncio.Event()
        self._life = Lifecycle(self._pool, folder, options, self._unneeded.set)

    async def serve(self, listener: socket.socket) -> None:
        """Run until standard input closes, or until nothing has run for long (`LocalOptions.zygote_keep_alive`)."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        loop.add_reader(self._supervisor, self._asked)
        await self._restore()
        server = await asyncio.start_server(self._connected, sock=listener, limit=wire.MAX_MESSAGE)
        self._life.spawn(self._life.prepare())
        self._life.spawn(self._life.watch())
        self._supervisor.send(b"\n")
        ends = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._unneeded)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        server.close()
        await self._life.close(_CLOSE_SECONDS)
        if not self._stopping.is_set():
            try:
                hibernation.leave(self._folder, self._pool, time.monotonic_ns())
            except OSError as error:
                log.error("what was counted is lost: %s", reason_of(error))

    def _asked(self) -> None:
        """The supervisor wants to know whether we live, or wants us to end."""
        try:
            if self._supervisor.recv(4096):
                trouble = " ".join(self._life.trouble.split())[:_LONGEST_TROUBLE]
                self._supervisor.send(f"{trouble}\n".encode())
                return
        except BlockingIOError:  # it does not read what it asks for
            return
        except OSError as error:
            log.debug("supervisor: %s", error)
        asyncio.get_running_loop().remove_reader(self._supervisor)
        self._stopping.set()

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio's own loops and callbacks could not do, such as accepting a connection without descriptors."""
        error = context.get("exception")
        if error is not None and not isinstance(error, OSError):
            log.error("a defect", exc_info=error)
        else:
            self._complaints.note(str(context.get("message")), error or "")

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._life.spawn(self._client(reader, writer))  # asyncio's own task would be logged when it is cancelled

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        activations: set[asyncio.Task[None]] = set()
        try:
            while True:
                length = wire.length_of(await reader.readexactly(8))
                message = wire.parse(await reader.readexactly(length))
                if message.get("operation") == "activate":
                    for wanted in message["wanted"]:
                        task = self._life.spawn(self._activate(writer, *wanted, seconds=float(message["seconds"])))
                        activations.add(task)
                        task.add_done_callback(activations.discard)
                elif message.get("operation") == "suspect":
                    if running := self._pool.instances.get(message["path"]):
                        self._life.suspect(running, float(message["expected"]))
                else:
                    writer.write(wire.pack(await self._answer(message)))
                    await writer.drain()
        except (asyncio.IncompleteReadError, OSError, wire.Lost, KeyError, TypeError, ValueError) as error:
            log.debug("control connection ended: %s", error)
        finally:
            for task in list(activations):  # nobody waits for these any more
                task.cancel()
            writer.close()

    async def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        operations: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "deploy": self._deploy,
            "remove": self._remove,
            "stop": self._stop,
            "fits": self._fits,
            "stuck": self._stuck,
            "prewarm": self._prewarm,
            "identify": self._identify,
            "status": self._status,
        }
        try:
            return {"ok": await operations[message["operation"]](message)}
        except Refused as error:
            return {"error": error.kind, "cause": str(error)}
        except OSError as error:
            return {"error": "platform", "cause": f"{type(error).__name__}: {reason_of(error)}"}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": "platform", "cause": public(f"{type(error).__name__}: {error}")}

    async def _deploy(self, message: dict[str, Any]) -> None:
        deployments = [deployment_from(raw, self._options.keep_alive) for raw in message["functions"]]
        await self._life.install(deployments)
        self._save()

    async def _remove(self, message: dict[str, Any]) -> None:
        functions = self._named(message["names"])
        for function in functions:
            self._pool.functions.pop(function.deployment.name, None)
        self._save()
        await self._life.stop(functions)

    async def _stop(self, message: dict[str, Any]) -> None:
        await self._life.stop(self._named(message["names"]))

    def _named(self, names: list[str]) -> list[Function]:
        return [self._life.function(name) for name in names]

    def _save(self) -> None:
        """So that a new daemon in this folder knows the functions of the one before."""
        raw = json.dumps([asdict(f.deployment) for f in self._pool.functions.values()])
        draft = self._folder / f"{_FUNCTIONS}.new"
        draft.write_text(raw)
        draft.rename(self._folder / _FUNCTIONS)

    async def _restore(self) -> None:
        for leftover in self._folder.glob("*.sock"):
            if leftover.name != SOCKET:
                leftover.unlink()
        with suppress(FileNotFoundError):
            known = json.loads((self._folder / _FUNCTIONS).read_text())
            await self._life.install(deployment_from(raw, self._options.keep_alive) for raw in known)
        hibernation.take_up(self._folder, self._pool)

    async def _prewarm(self, message: dict[str, Any]) -> None:
        names = [function.deployment.name for function in self._named(message["names"])]
        await self._within(message, asyncio.gather(*map(self._life.prewarm, names)))

    async def _within(self, message: dict[str, Any], work: Awaitable[Any]) -> None:
        """Raises `Refused` if it is not done within the seconds that the message gives."""
        try:
            async with asyncio.timeout(float(message["seconds"])):
                await work
        except TimeoutError:
            raise Refused("deadline", self._why_waiting()) from None

    async def _identify(self, _: dict[str, Any]) -> int:
        return os.getpid()

    async def _stuck(self, message: dict[str, Any]) -> None:
        if running := self._pool.instances.get(message["path"]):
            self._life.stuck(running, float(message["seconds"]))

    async def _fits(self, message: dict[str, Any]) -> None:
        self._named(message["names"])
        if self._pool.budget is None:
            return
        await self._within(message, self._life.zygote_ready())
        least = self._pool.least(message["names"])
        if least > self._pool.budget:
            raise Refused("option", f"{least} {self._pool.own}")

    async def _activate(
        self, writer: asyncio.StreamWriter, number: int, name: str, lost: str | None, *, seconds: float
    ) -> None:
        try:
            if lost in self._pool.instances:  # its caller knows of its end before we do
                self._life.drain(self._pool.instances[lost])
            try:
                async with asyncio.timeout(seconds):
                    running = await self._life.obtain(name)
            except TimeoutError:
                raise Refused("deadline", self._why_waiting()) from None
            running.promise(time.monotonic_ns())
            function = running.function
            scalable = function.deployment.max_instances > 1
            answer = {
                "id": number,
                "path": running.path,
                "scalable": scalable,
                "memory": running.charge,
                "last_end": function.last_end,
                "scarce": self._life.scarce_lately,
            }
        except Refused as error:
            answer = {"id": number, "error": error.kind, "cause": str(error)}
        except OSError as error:  # whoever asked must not wait in vain
            self._complaints.note("an instance was not started", error)
            answer = {"id": number, "error": "platform", "cause": reason_of(error)}
        if not writer.is_closing():  # else nobody waits for it any more
            writer.write(wire.pack(answer))

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

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        return asdict(self._pool.status(time.monotonic_ns()))


def main() -> None:
    """Serve until standard input closes, or nobody needs it."""
    folder, listener, options = sys.argv[1:]
    logs.inherit("platform")
    leave_signals_to_parent()
    raise_descriptor_limit()
    os.umask(0o077)
    supervisor = socket.socket(fileno=sys.stdin.fileno())
    daemon = Daemon(Path(folder), LocalOptions.from_json(options), supervisor)
    asyncio.run(daemon.serve(socket.socket(fileno=int(listener))))


if __name__ == "__main__":
    main()
