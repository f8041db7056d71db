"""The daemon's end of the zygote: starts it when it is needed, gives it orders, hears what happens to its children."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from faasmoe.errors import FaasmoeError, ProcessLost
from faasmoe.platforms.local.daemon.zygote import Listener
from faasmoe.platforms.local.daemon.zygote_process import start_zygote
from faasmoe.platforms.local.protocol.endings import ended_by_itself
from faasmoe.platforms.local.protocol.payloads import Duty, Preload, encode, read_preload_failed
from faasmoe.util.backoff import Backoff
from faasmoe.util.failure_log import FailureLog, reason_of
from faasmoe.util.forkserver.client import ForkServerClient
from faasmoe.util.forkserver.messages import Alive, Ended, Event, Forked, ForkFailed, Loaded
from faasmoe.util.forkserver.server_process import ServerProcess

log = logging.getLogger(__name__)

_NAME = "process that forks instances"
_START_SECONDS = 120.0  # importing from a slow disk included
_PAUSES = (0.1, 5.0)  # seconds before the next start after one that failed: at first, and at most
PREFORKED = 2  # workers that the zygote forks ahead


class ZygoteFailed(FaasmoeError):
    """It can never be started as things are."""


class ZygoteClient:
    """`listener` hears of each event of a child, and None when a zygote that was ready has ended. See `Zygote`."""

    def __init__(
        self,
        modules: Sequence[str],
        listener: Listener,
        *,
        spawn: Callable[[], ServerProcess] = start_zygote,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trouble = ""  # why the last one ended or did not start; empty once one is ready
        self.up = False  # orders are taken
        self.owes = False  # it was asked for a heartbeat that has not come
        self._preload = encode(Preload(tuple(modules), PREFORKED))
        self._listener = listener
        self._spawn = spawn
        self._server: ForkServerClient[None] | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._unusable = False  # it has told that another start would not help
        self._closed = False
        self._backoff = Backoff(*_PAUSES, clock=clock)
        self._failures = FailureLog(log, clock=clock)

    @property
    def pid(self) -> int | None:
        """Of the process, ready or not."""
        return self._server.pid if self._server else None

    async def ready(self) -> None:
        """Return when orders are taken. Starts the zygote as often as needed. Raises `ZygoteFailed`."""
        while not self.up:
            if self._attempt is None or self._attempt.done():
                self._attempt = asyncio.ensure_future(self._bring_up())
            await asyncio.shield(self._attempt)
            if self._unusable or self._closed:
                raise ZygoteFailed(self.trouble or "the platform is ending")

    async def _bring_up(self) -> None:
        """One attempt, after the pause that the last one has left."""
        await asyncio.sleep(self._backoff.left)
        if self._closed:
            return
        self._unusable = False
        try:
            self._server = server = ForkServerClient(
                name=_NAME,
                role="instance",
                spawn=self._spawn,
                decode=lambda _: None,
                decode_error=_failure,
                on_event=self._heard,
                on_end=self._ended,
            )
        except OSError as error:
            self._failed(f"the {_NAME} cannot be started: {reason_of(error)}")
            return
        server.load(self._preload)
        if not (await asyncio.wait([server.loaded], timeout=_START_SECONDS))[0]:
            server.end(ProcessLost(f"it was not ready within {_START_SECONDS:g} s"))

    def start(self, duty: Duty, descriptors: Sequence[int]) -> int:
        """Have an instance forked while the zygote is `up`. Returns the number that events have.

        Raises `OSError` if the order cannot be sent. If the zygote is just ending, the listener hears of that.
        """
        if self._server is None:
            raise ProcessLost(f"the {_NAME} has ended")
        return self._server.fork(descriptors, encode(duty)).number

    def kill(self, number: int) -> None:
        """Have an instance killed. One that has ended is fine."""
        if self._server is not None:
            self._server.kill(number)

    def ping(self) -> None:
        """Ask for a heartbeat: `owes` until it has come."""
        if self._server is not None and self.up and not self.owes:
            self.owes = True
            self._server.ping()

    def memory(self) -> int:
        """Bytes that the zygote and this process have in memory."""
        pages = 0
        for pid in (os.getpid(), *([self._server.pid] if self._server else [])):
            with suppress(OSError):  # it has just ended
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def end(self, cause: str) -> None:
        """End the zygote because of `cause`, and whatever it has forked."""
        if self._server is not None:
            self._server.end(ProcessLost(cause))

    def close(self) -> None:
        """End the zygote for good."""
        self._closed = True
        self.end("the platform is ending")

    def _heard(self, event: Event) -> None:
        match event:
            case Loaded():
                self.up, self.trouble = True, ""
            case Alive():
                self.owes = False
            case Forked() | ForkFailed() | Ended():
                self._listener(event)

    def _ended(self, error: FaasmoeError, status: int | None) -> None:
        """The zygote has ended, with `status` if it has by itself."""
        self._server = None
        self._unusable = isinstance(error, ZygoteFailed)
        was_up, self.up, self.owes = self.up, False, False
        if not self._closed:
            cause = str(error) if status is None else ended_by_itself(status)
            self._failed(f"the {_NAME} was lost: {cause}")
        if was_up:
            self._listener(None)

    def _failed(self, trouble: str) -> None:
        self.trouble = trouble
        self._failures.failed("no instance can be started now", trouble)
        self._backoff.failed()


def _failure(payload: bytes) -> ZygoteFailed:
    """Raises `MessageError`."""
    return ZygoteFailed(f"what functions need cannot be imported: {read_preload_failed(payload).cause}")
