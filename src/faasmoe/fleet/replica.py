"""An orchestrator as the gateway sees it: a replica, which outlives its processes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

from faasmoe.errors import CheckpointChanged, EngineBusy, EngineStopped, FaasmoeError, MessageError, RequestError
from faasmoe.fleet.link import Link
from faasmoe.fleet.replica_process import ReplicaProcess
from faasmoe.fleet.stream import PieceStream
from faasmoe.protocol.messages import StatsReport, Submit, pack
from faasmoe.protocol.request import GenerationRequest
from faasmoe.protocol.stats import EngineStats
from faasmoe.util.backoff import Backoff

log = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds that a request waits for an orchestrator that is starting
MOST_WAITING = 1024  # requests that wait for one
PAUSES = (0.1, 4.0)  # seconds before another start, at first and at most: the obstacle may be gone any moment
_SOON = 1.0  # seconds after which the death of an orchestrator is followed by another start at once
_FRESH_SECONDS = 1.0  # that a page of stats waits for new ones
_STARTING = "the orchestrator is starting"
_QUEUED = "as many orchestrators as may run are busy with other tenants"

State = Literal["starting", "ok", "stopped"]


class OrchestratorReplica:
    """Runs requests on one orchestrator process, and starts another whenever that process is lost.

    A replica is `starting` while no process takes requests, which wait meanwhile; `ok` while one does; and `stopped`
    for good after `refuse` or `close`. For one asyncio loop.
    """

    def __init__(
        self,
        launch: Callable[[], Awaitable[ReplicaProcess]],
        turn: asyncio.Semaphore,
        *,
        tenant: str = "",
        patience: float = PATIENCE,
        on_started: Callable[[float, bool], None] = lambda seconds, again: None,
        on_report: Callable[[StatsReport], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`turn` bounds the replicas that run; `tenant` is the replica's only one, "" if all tenants share it.

        `on_started` is called with the seconds that each start took, and whether it follows a lost process; `on_report`
        with each report of its processes.
        """
        self.waits_for = _STARTING  # in words: what waiting requests wait for
        self.lost = False  # a process was lost or could not start, and there is no other yet
        self.has_turn = False
        self._launch, self._turn = launch, turn
        self._log_fields = {"tenant": tenant}
        self._patience = patience
        self._on_started, self._on_report = on_started, on_report
        self._clock, self._sleep = clock, sleep
        self._backoff = Backoff(*PAUSES, clock=clock)
        self._task: asyncio.Task[None] | None = None
        self._process: ReplicaProcess | None = None  # the newest
        self._ran = False  # a process has taken requests before
        self._link: Link | None = None
        self._settled = asyncio.Event()  # there is a link, or there will never be one
        self._stopped: str | None = None  # why
        self._hopeless: str | None = None  # why no orchestrator can start as things are
        self._numbers = itertools.count()
        self._waiting = 0  # requests that no orchestrator has taken yet
        self._past = EngineStats()  # of processes that have ended
        self._idle_since: float | None = None

    @property
    def state(self) -> State:
        """`ok`: requests run; `starting`: they wait for a process; `stopped`: they are refused."""
        if self._stopped is not None:
            return "stopped"
        return "starting" if self._link is None else "ok"

    @property
    def busy(self) -> bool:
        """Whether any request runs or waits."""
        return bool(self._waiting) or (self._link is not None and self._link.busy)

    @property
    def requests(self) -> int:
        """Requests that run or wait."""
        return self._waiting if self._link is None else self._link.requests

    def tell_served(self, tokens: dict[str, int]) -> None:
        """Tell the orchestrator how many tokens others have served to tenants, if it has requests."""
        if self._link is not None and self._link.busy:
            self._link.tell_served(tokens)

    @property
    def stats(self) -> EngineStats:
        """The newest stats of this and earlier processes."""
        return self._past if self._link is None else self._past + self._link.latest

    @property
    def leaves(self) -> bool:
        """Whether its process takes requests, and had better be replaced by one elsewhere."""
        return self.state == "ok" and self._process is not None and self._process.leaves()

    def hand_over(self, reason: str) -> None:
        """Take no more requests and let another replica have the turn; running ones go on, until `close`."""
        self.refuse(reason)
        self._give_turn()

    def _give_turn(self) -> None:
        if self.has_turn:
            self.has_turn = False
            self._turn.release()

    def idle_seconds(self) -> float:
        """Seconds since the replica was first found idle by this method; 0 while it is busy."""
        if self.busy:
            self._idle_since = None
            return 0.0
        if self._idle_since is None:
            self._idle_since = self._clock()
        return self._clock() - self._idle_since

    def start(self) -> None:
        """Keep a process running from now on, as soon as it is this replica's turn."""
        self._task = asyncio.create_task(self._keep_running())

    def attach(self, link: Link) -> None:
        """Send requests over `link` from now on."""
        self._link, self.lost, self._hopeless = link, False, None
        link.on_report = self._on_report
        self._settled.set()

    def detach(self, reason: str) -> None:
        """The process is lost: its requests fail with `EngineStopped`, new ones wait for the next process."""
        if self._link is not None:
            link, self._link, self.lost = self._link, None, True
            self._past += link.latest.counted()
            if self._stopped is None:
                self._settled.clear()
            link.fail(reason)

    def despair(self, reason: str) -> None:
        """No process can start until somebody intervenes: requests fail at once, until one has started after all."""
        self._hopeless = reason
        self._settled.set()

    def refuse(self, reason: str) -> None:
        """Take no more requests, for good; running ones go on."""
        self._stopped = reason
        self._settled.set()

    def cut(self, reason: str) -> None:
        """Let all running requests fail with `EngineStopped`; their usage is still reported."""
        if self._link is not None:
            self._link.cut(reason)

    async def close(self, reason: str) -> None:
        """End the process and the requests that it runs."""
        self.refuse(reason)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.detach(reason)
        try:
            if self._process:
                await self._process.end()
        finally:
            self._give_turn()

    async def refresh(self) -> None:
        """Make `stats` as new as can be had without waiting long."""
        if self._link is not None:
            with suppress(TimeoutError, EngineBusy):
                async with asyncio.timeout(_FRESH_SECONDS):
                    await self._link.refresh()

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[PieceStream]:
        """Start all of `requests`, or none. Iterate a stream for the pieces of its request; closing it cancels that.

        Raises `RequestError`, `EngineBusy` or `EngineStopped`, and streams raise `EngineStopped` if the orchestrator
        fails under way. Requests that a dying orchestrator had not taken are sent to the next one, once.
        """
        self._idle_since = None
        with self._counted(len(requests)):
            number = next(self._numbers)
            try:
                frame = pack(Submit(number, tuple(requests)))
            except MessageError as error:
                raise RequestError(f"the request cannot be run: {error}") from error
            ids = [request.id for request in requests]
            link = await self._running_link()
            try:
                return await link.submit(number, frame, ids)
            except EngineStopped:
                if not link.lost or self._stopped is not None:
                    raise
            return await (await self._running_link()).submit(number, frame, ids)

    @contextmanager
    def _counted(self, requests: int) -> Iterator[None]:
        """Count requests as waiting. Raises `EngineBusy` if too many wait already."""
        if self._link is None and self._waiting + requests > MOST_WAITING:
            raise EngineBusy(f"{self._waiting} requests wait for the orchestrator already; try again later")
        self._waiting += requests
        try:
            yield
        finally:
            self._waiting -= requests

    async def _running_link(self) -> Link:
        try:
            async with asyncio.timeout(self._patience):
                await self._settled.wait()
        except TimeoutError:
            raise EngineStopped(f"{self.waits_for}; try again") from None
        if self._stopped is not None or self._link is None:
            raise EngineStopped(self._stopped or self._hopeless or "the orchestrator has just ended; try again")
        return self._link

    async def _keep_running(self) -> None:
        self.waits_for = _QUEUED
        await self._turn.acquire()
        self.has_turn, self.waits_for = True, _STARTING
        while self._stopped is None:
            try:
                await self._run_once()
            except Exception as error:  # noqa: BLE001 - a defect must not end the supervision
                await self._pause("the orchestrator cannot be supervised", error)

    async def _run_once(self) -> None:
        """Run one process from its start to its end, and pause."""
        asked = self._clock()
        try:
            process = await self._launch()
        except (FaasmoeError, OSError) as error:
            if isinstance(error, CheckpointChanged):
                self.despair(str(error))
            await self._pause("the orchestrator did not start", error)
            return
        self._process, began = process, self._clock()
        self._note_start(began - asked)
        self.attach(process.link)
        reason = await process.serve()
        self.detach(reason)
        status = await process.end()
        if self._stopped is None:
            log.error("%s (%s); starting another", reason, status, extra=self._log_fields)
        if self._clock() - began < _SOON:
            await self._sleep(self._backoff.failed())
        else:
            self._backoff.success()

    async def _pause(self, what: str, error: Exception) -> None:
        self.lost = True
        pause = self._backoff.failed()
        known = isinstance(error, (FaasmoeError, OSError))
        log.error("%s, trying again in %.1f s: %s", what, pause, error if known else type(error).__name__,
                  exc_info=None if known else error)  # fmt: skip
        await self._sleep(pause)

    def _note_start(self, seconds: float) -> None:
        again, self._ran = self._ran, True
        self._on_started(seconds, again)
        text = "another orchestrator is running" if again else "an orchestrator is running"
        log.info(text, extra={**self._log_fields, "seconds": round(seconds, 3)})
