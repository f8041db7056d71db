"""A template and its orchestrators on a node, for the threads of the node's agent."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from faasmoe.errors import EngineStopped
from faasmoe.fleet.launcher import ForkedOrchestrator, TemplateClient
from faasmoe.protocol.messages import read_start
from faasmoe.util.closeable import Closeable
from faasmoe.util.folders.run_folder import RunFolder

log = logging.getLogger(__name__)

_FORK_SECONDS = 10.0
_LOOK_SECONDS = 1.0  # between looks whether a model that is being loaded is still wanted
_HANG_UP_SECONDS, _KILL_SECONDS = 1.0, 1.0  # in which an orchestrator ends: by itself, and when it was killed
_CLOSE_SECONDS = 5.0

T = TypeVar("T")


class HostedProcess:
    """An orchestrator of a `TemplateHost`."""

    def __init__(self, forked: ForkedOrchestrator, loop: asyncio.AbstractEventLoop) -> None:
        self.socket: socket.socket = forked.socket
        self.pid = forked.pid
        self._forked = forked
        self._loop = loop

    def end(self) -> None:
        """Close the socket, and see that the process ends. Takes two seconds at most."""
        self.socket.close()
        if self._loop.is_closed():  # the host has ended all of them
            return
        ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        try:
            ending.result(_HANG_UP_SECONDS + _KILL_SECONDS)
        except TimeoutError:
            log.error("an orchestrator was killed, and is not gone yet")

    async def _end(self) -> None:
        await asyncio.wait([self._forked.ended], timeout=_HANG_UP_SECONDS)
        if not self._forked.ended.done():
            self._forked.kill()
            await asyncio.wait([self._forked.ended], timeout=_KILL_SECONDS)


class TemplateHost(Closeable):
    """For all threads: what asyncio needs runs in one of its own."""

    def __init__(self, slots: int) -> None:
        """`slots`: orchestrators that may run at a time."""
        self.slots = slots
        self._lock = threading.Lock()  # of the template
        self._template: TemplateClient | None = None
        self._folder: RunFolder | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="template", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        template = self._template
        return template is not None and template.running and not template.loading

    def load(self, start: bytes, checkpoint: Path, pool: Path, is_wanted: Callable[[], bool]) -> None:
        """Load the model, and forget an earlier one with its orchestrators. Waits until that is done.

        `start` is a `Start` as the server has encoded it; the folders are those of this machine. When `is_wanted` no
        longer says so, the template is ended. Raises `FaasmoeError` or `OSError`.
        """
        order = read_start(start)
        self.unload()
        with self._lock:
            if self._closed:
                raise EngineStopped("the node is shutting down")
            self._folder = RunFolder()
            config = replace(order.config, folder=str(checkpoint))
            folder = str(self._folder.path)
            self._template = TemplateClient(
                msgspec.structs.replace(order, config=config, pool=str(pool), folder=folder)
            )
            loading = self._submit(self._template.ready())
        while not wait([loading], _LOOK_SECONDS).done:
            if not is_wanted():
                self.unload()
                raise EngineStopped("the model is no longer wanted")
        loading.result()

    def fork(self) -> HostedProcess:
        """Start an orchestrator of the model. Raises `FaasmoeError` or `OSError`."""
        template = self._template
        if template is None or not self.ready:
            raise EngineStopped("the node has not loaded the model; try again")
        forking = self._submit(template.fork())
        try:
            return HostedProcess(forking.result(_FORK_SECONDS), self._loop)
        except TimeoutError as error:
            forking.cancel()
            raise EngineStopped("the template does not answer") from error

    def unload(self) -> None:
        """End the orchestrators and forget the model."""
        with self._lock:
            template, self._template = self._template, None
            folder, self._folder = self._folder, None
        if template:
            self._submit(_close(template)).result(_CLOSE_SECONDS)
        if folder:
            folder.close()

    def close(self) -> None:
        """Unload, for good. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.unload()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _close(template: TemplateClient) -> None:
    template.close()
