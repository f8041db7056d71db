"""Starts the orchestrator, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from types import TracebackType

from faasmoe.errors import EngineStopped, FaasmoeError, MessageError
from faasmoe.orchestrator.client import OrchestratorClient
from faasmoe.orchestrator.link import Link
from faasmoe.orchestrator.messages import Failed, Ready, Start, Starting, error_of, pack

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_FIRST_DELAY = 0.5  # seconds after an orchestrator that did not start; doubled each time
_LONGEST_DELAY = 30.0
_STDERR = 2


class Supervisor:
    """Owns the orchestrator process behind a client. Use it as an async context manager.

    Entering it waits for the first start, and raises the `UserError` or `EngineStopped` that was in the way.
    """

    def __init__(self, client: OrchestratorClient, start: Start) -> None:
        self._client = client
        self._start = start
        self._child: Child  # the newest

    async def __aenter__(self) -> Ready:
        await self._launch()
        self._task = asyncio.create_task(self._keep())
        self._task.add_done_callback(self._ended)
        return self._child.ready

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the orchestrator and what it runs."""
        self._client.refuse("the server is shutting down")
        self._task.cancel()
        await asyncio.wait([self._task])  # if it has failed, `_ended` has said so
        self._client.detach("the server is shutting down")
        await self._child.end()

    async def _keep(self) -> None:
        while True:
            reason = await self._child.serve()
            self._client.detach(reason)
            status = await self._child.end()
            if self._client.state == "stopped":
                return
            log.error("%s (%s); starting another", reason, status)
            await self._relaunch()
            self._client.restarts += 1
            log.warning("another orchestrator is running")

    async def _launch(self) -> None:
        self._child = await Child.launch(self._start)
        self._client.attach(self._child.link, self._child.ready)

    async def _relaunch(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                await self._launch()
                return
            except (FaasmoeError, OSError) as error:
                log.error("the orchestrator did not start, trying again in %g s: %s", delay, error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.critical("the orchestrator is no longer watched", exc_info=error)
            self._client.refuse("the orchestrator is no longer watched")
            self._client.detach("the orchestrator is no longer watched")


class Child:
    """One orchestrator process that is ready."""

    def __init__(self, process: asyncio.subprocess.Process, link: Link) -> None:
        self._process = process
        self.link = link
        self.ready: Ready

    @classmethod
    async def launch(cls, start: Start) -> Child:
        """Start a process and wait until it is ready. Raises what it could not start for."""
        ours, theirs = socket.socketpair()
        with theirs:
            link = await Link.over(ours)
            command = ("-m", "faasmoe.orchestrator.process", str(theirs.fileno()), str(os.getpid()))
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *command,
                    stdin=subprocess.DEVNULL,
                    stdout=_STDERR,  # what a library prints must not get among our own output
                    pass_fds=[theirs.fileno()],
                )
            except BaseException:
                await link.close()
                raise
        child = cls(process, link)
        try:
            child.link.send(pack(start))
            child.ready = await child._until_ready()
        except BaseException as error:
            status = await child.end()
            if isinstance(error, EngineStopped):
                raise EngineStopped(f"{error} ({status})") from error
            raise
        return child

    async def _until_ready(self) -> Ready:
        while isinstance(message := await self.link.receive(), Starting):
            pass
        if isinstance(message, Ready):
            return message
        if isinstance(message, Failed):
            raise error_of(message.error)
        raise MessageError(f"{type(message).__name__} is not expected from an orchestrator that starts")

    async def serve(self) -> str:
        """Until it is lost. Returns why."""
        try:
            await self.link.run()
        except FaasmoeError as error:
            return str(error)

    async def end(self) -> str:
        """Hang up, and make sure that the process is gone. Returns how it ended."""
        await self.link.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        code = self._process.returncode or 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"status {code}"
