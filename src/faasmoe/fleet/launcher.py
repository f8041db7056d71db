"""Launches orchestrators: has a template, which it starts when one is needed and none runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from faasmoe.errors import EngineStopped, ProcessLost
from faasmoe.fleet.link import Link
from faasmoe.fleet.replica_process import ReplicaProcess
from faasmoe.fleet.template_process import TemplateProcess
from faasmoe.platforms.registry import wake
from faasmoe.protocol.config import About
from faasmoe.protocol.messages import Start


class Launcher(Protocol):
    """Starts orchestrators: `TemplateClient` does, and `PlacedLauncher`."""

    @property
    def running(self) -> bool:
        """Whether the launcher has a process of its own, which takes memory."""

    @property
    def loading(self) -> bool:
        """Whether the model is being loaded, so that `launch` has to wait."""

    async def ready(self) -> About:
        """Load the model. Raises `UserError` or `EngineStopped`; `ProcessLost` or `OSError` if another try may help."""

    async def launch(self) -> ReplicaProcess:
        """Start an orchestrator; it takes requests when this returns. Raises `FaasmoeError` or `OSError`."""

    def close(self) -> None:
        """End the launcher's process; `ready` and `launch` start another."""


@dataclass(frozen=True, slots=True)
class ForkedOrchestrator:
    """An orchestrator of a template."""

    socket: socket.socket  # over which it speaks
    pid: int
    ended: asyncio.Future[int]  # exit status, or minus the signal that killed it
    kill: Callable[[], None]


class TemplateClient:
    """For one asyncio loop. No template runs before `begin`, `ready` or `launch`, nor after `close`."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._process: TemplateProcess | None = None  # the newest

    @property
    def running(self) -> bool:
        """Whether there is a template, ready or not."""
        return self._process is not None and self._process.running

    @property
    def loading(self) -> bool:
        """Whether there is a template that has not loaded the model yet."""
        return self._process is not None and self._process.running and not self._process.about.done()

    def begin(self) -> None:
        """Start a template, if none runs. Does not wait. `ready` raises the error of a start that fails."""
        with suppress(OSError):  # `ready` tries again
            self._template()

    async def ready(self) -> About:
        """Return when orchestrators can be forked.

        Raises the `UserError` or `EngineStopped` of a model that cannot be loaded; after `ProcessLost` or `OSError`
        another try may help.
        """
        return await asyncio.shield(self._template().about)

    async def launch(self) -> ReplicaProcess:
        """Return an orchestrator that takes requests. Raises as `ready` does.

        The pool that it will need is woken at once, to start while the model is loaded.
        """
        wake(self._start.platform, self._start.pool)
        template = self._template()
        forked = await self._fork(template)
        link = await Link.over(forked.socket)
        link.watch(forked.pid)
        child = ReplicaProcess(link, forked.ended, forked.kill)
        try:
            await child.ready()
        except BaseException as error:
            status = await child.end()
            if not forked.ended.done():  # it forks no more, and does not kill either
                template.end(ProcessLost("the template does not answer"))
            if isinstance(error, EngineStopped):
                raise type(error)(f"{error} ({status})") from error
            raise
        return child

    async def fork(self) -> ForkedOrchestrator:
        """Return an orchestrator that has just been forked. Raises as `ready` does."""
        return await self._fork(self._template())

    async def _fork(self, template: TemplateProcess) -> ForkedOrchestrator:
        await asyncio.shield(template.about)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                number, pid, ended = await template.fork(theirs)
            except BaseException:
                ours.close()
                raise
        return ForkedOrchestrator(ours, pid, ended, partial(template.kill, number))

    def close(self) -> None:
        """End the template and all its orchestrators. May be called twice."""
        if self._process is not None:
            self._process.end(EngineStopped("the template was ended"))

    def _template(self) -> TemplateProcess:
        """The template that runs, or a new one. Raises `OSError` if none can be started."""
        if self._process is None or not self._process.running:
            self._process = TemplateProcess(self._start)
        return self._process
