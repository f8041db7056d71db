"""An orchestrator on this machine that takes the place of one on a node, until that takes requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from faasmoe.errors import brief
from faasmoe.fleet.replica_process import ReplicaProcess

log = logging.getLogger(__name__)


class Substitute:
    """Knows when a substitute had better leave: when its successor is ready, so that nobody waits for one that fails.

    For one asyncio loop.
    """

    def __init__(
        self,
        has_room: Callable[[], bool],
        start: Callable[[], Awaitable[ReplicaProcess | None]],
        succeed: Callable[[ReplicaProcess], object],
    ) -> None:
        """`has_room`: whether a node could start one; `start` does, as soon as it takes requests, or returns None.

        `succeed` is given the successor once. Whoever launches the next orchestrator is to get it.
        """
        self._has_room = has_room
        self._start = start
        self._succeed = succeed
        self._starting: asyncio.Task[ReplicaProcess | None] | None = None

    def leaves(self) -> bool:
        """Whether its successor is ready. Has one started as soon as a node has room."""
        if self._starting is None:
            if self._has_room():
                self._starting = asyncio.ensure_future(self._start())
            return False
        if not self._starting.done():
            return False
        starting, self._starting = self._starting, None
        if starting.cancelled():
            return False
        if (error := starting.exception()) is not None:
            log.warning("no orchestrator has started on a node; the one on this machine goes on: %s", brief(error))
            return False
        if (process := starting.result()) is not None:
            self._succeed(process)
        return process is not None

    def gone(self) -> None:
        """The substitute has ended. It needs no successor any more."""
        if self._starting is None:
            return
        starting, self._starting = self._starting, None
        if not starting.cancel() and not starting.exception() and (process := starting.result()):
            process.abandon()
