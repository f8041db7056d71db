"""The orchestrators of a server: for all tenants or one for each tenant, running while they have requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from faasmoe.errors import SHUTTING_DOWN, EngineStopped, FaasmoeError, ProcessLost
from faasmoe.fleet.launcher import Launcher
from faasmoe.fleet.prefix_router import PrefixRouter
from faasmoe.fleet.replica import PATIENCE, PAUSES, OrchestratorReplica, State
from faasmoe.fleet.starts import Starts
from faasmoe.fleet.stream import PieceStream
from faasmoe.protocol.config import About, FleetOptions
from faasmoe.protocol.messages import StatsReport
from faasmoe.protocol.request import GenerationRequest
from faasmoe.protocol.stats import EngineStats
from faasmoe.util.backoff import Backoff
from faasmoe.util.failure_log import FailureLog

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # between looks for idle orchestrators
_END_SECONDS = 1.5  # in which orchestrators end by themselves when the server does
_IDLED = "the orchestrator has ended after being idle; try again"
_REPLACED = "the orchestrator is replaced by one on another machine; try again"


class Fleet:
    """Runs requests on the orchestrator of their tenant, or on one of those that serve all tenants.

    An orchestrator is started for the first request that goes to it. Orchestrators that serve all tenants get requests
    by `PrefixRouter`, and are told what the others have served, so that weights hold over all of them. An orchestrator
    is stopped after `FleetOptions.keep_alive` idle seconds, and the launcher is closed as long after the last one. If
    `FleetOptions.orchestrators` run and another tenant has requests, the orchestrator that has been idle longest is
    stopped; if none is idle, the requests wait. The death of an orchestrator fails the requests that it runs alone.

    Use it as an async context manager, in one asyncio loop. Entering it begins to load the model and does not wait for
    that: `ready` does. Requests that come earlier wait.
    """

    def __init__(
        self,
        launcher: Launcher,
        options: FleetOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
        on_busy: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        """`on_busy` is called with the GB-seconds of instances that tenants have used since it was called last."""
        self._launcher = launcher
        self._options = options or FleetOptions()
        self._clock = clock
        self._patience = patience
        self._on_busy = on_busy
        self._turns = asyncio.Semaphore(self._options.orchestrators)
        self._router = PrefixRouter()
        self._replicas: dict[str, OrchestratorReplica] = {}  # by tenant, or by number where they serve all tenants
        self._replaced: list[OrchestratorReplica] = []  # that have requests still
        self._leaving: dict[asyncio.Task[None], OrchestratorReplica] = {}
        self._past = EngineStats()  # of replicas that have left
        self._unused_since: float | None = None  # when nobody was left
        self._refused: str | None = None  # why nothing is taken any more
        self._about: About | None = None  # until the model is loaded
        self._look_failures = FailureLog(log, logging.ERROR, clock)
        self.starts = Starts()

    async def __aenter__(self) -> Self:
        self._loading = asyncio.create_task(self._load())
        self._loading.add_done_callback(self._loaded)
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all orchestrators and what they run, within 2 s, whatever state their processes are in."""
        self.refuse(SHUTTING_DOWN)
        self._loading.cancel()
        self._looking.cancel()
        for replica in [*self._replicas.values(), *self._replaced]:
            self._end(replica, SHUTTING_DOWN)
        self._replicas.clear()
        self._replaced.clear()
        try:
            if self._leaving:
                await asyncio.wait(self._leaving, timeout=_END_SECONDS)
        finally:
            self._launcher.close()  # nobody outlives it
            await asyncio.gather(*self._leaving, self._loading, self._looking, return_exceptions=True)

    @property
    def about(self) -> About:
        """The model's description. Raises `EngineStopped` before the model is loaded."""
        if self._about is None:
            raise EngineStopped(self._refused or "the model is being loaded; try again")
        return self._about

    async def ready(self) -> About:
        """Returns when the model is loaded. Raises the `UserError` or `EngineStopped` that keeps it from being served.

        A template that dies while it loads does not: another is started.
        """
        try:
            return await asyncio.shield(self._loading)
        except asyncio.CancelledError:
            if self._loading.cancelled():
                raise EngineStopped(self._refused or SHUTTING_DOWN) from None
            raise

    @property
    def state(self) -> State:
        """Whether requests are run, are refused, or wait: for the model, or because all orchestrators were lost."""
        if self._refused is not None:
            return "stopped"
        if self._about is None:
            return "starting"
        replicas = self._replicas.values()
        return "starting" if replicas and all(replica.lost for replica in replicas) else "ok"

    @property
    def running(self) -> int:
        """Orchestrators that take requests."""
        return sum(replica.state == "ok" for replica in self._replicas.values())

    @property
    def busy(self) -> bool:
        """Whether an orchestrator runs requests, or requests wait for one."""
        return any(replica.busy for replica in self._everybody())

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[PieceStream]:
        """Start all of `requests`, which are one tenant's, or none. See `OrchestratorReplica.submit`."""
        if self._refused is not None:
            raise EngineStopped(self._refused)
        return await self._replica(self._route(requests[0])).submit(requests)

    def awaited(self, tenant: str) -> str:
        """In words: the reason why requests of `tenant` that were submitted have not begun."""
        names = [tenant] if self._options.strategy == "private" else self._shared
        starting = (r for name in names if (r := self._replicas.get(name)) and r.state == "starting")
        replica = next(starting, None)
        if replica is None:
            return "the orchestrator takes the request"
        if self._launcher.loading and replica.has_turn:
            return "the model is being loaded"
        return replica.waits_for

    async def stats(self) -> EngineStats:
        """The stats of all orchestrators, ended ones included, as new as can be had without waiting long."""
        replicas = self._everybody()
        await asyncio.gather(*(replica.refresh() for replica in replicas))
        return sum((replica.stats for replica in self._everybody()), self._past)

    def refuse(self, reason: str) -> None:
        """Take no more requests, for good; running ones go on."""
        self._refused = reason
        for replica in self._everybody():
            replica.refuse(reason)

    def cut(self, reason: str) -> None:
        """Take no more requests; running ones fail with `EngineStopped`, and their usage is still reported."""
        self.refuse(reason)
        for replica in self._everybody():
            replica.cut(reason)

    def look(self) -> None:
        """Stop orchestrators that have been idle too long, or whose turn another tenant needs, or that are replaced."""
        now, keep_alive = self._clock(), self._options.keep_alive
        for replica in [replica for replica in self._replaced if not replica.busy]:
            self._replaced.remove(replica)
            self._end(replica, _REPLACED)
        for tenant, replica in list(self._replicas.items()):
            idle = replica.idle_seconds()
            if not replica.busy and (not replica.has_turn or idle >= keep_alive):
                self._retire(tenant, _IDLED)
        self._make_room()
        for name in [name for name, replica in self._replicas.items() if replica.leaves]:
            self._replace(name)
        if self._replicas or self._replaced or self._leaving or self._about is None or not self._launcher.running:
            self._unused_since = None
            return
        if self._unused_since is None:
            self._unused_since = now
        if now - self._unused_since >= keep_alive:
            log.info("no orchestrator has run for %g s: the template process is ended", keep_alive)
            self._launcher.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._options.keep_alive / 2 or _LOOK_SECONDS))
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - a defect; the next look may do better
                self._look_failures.failed(
                    "idle orchestrators cannot be looked for; trying again each second", error
                )

    async def _load(self) -> About:
        backoff = Backoff(*PAUSES)
        while True:
            try:
                self._about = await self._launcher.ready()
                return self._about
            except (ProcessLost, OSError) as error:
                pause = backoff.failed()
                log.error("the model is not loaded, trying again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)

    def _loaded(self, loading: asyncio.Task[About]) -> None:
        if not loading.cancelled() and (error := loading.exception()):
            if not isinstance(error, FaasmoeError):  # else who waits for `ready` tells it
                log.error("the model cannot be served", exc_info=error)
            self.refuse("the model cannot be served; the server's log says why")

    @property
    def _shared(self) -> list[str]:
        """Names of the replicas that serve all tenants."""
        return [str(number) for number in range(1, self._options.orchestrators + 1)]

    def _route(self, request: GenerationRequest) -> str:
        """The name of the replica that gets a request."""
        if self._options.strategy == "private":
            return request.tenant
        replicas = ((name, self._replicas.get(name)) for name in self._shared)
        requests = {name: replica.requests if replica else 0 for name, replica in replicas}
        return self._router.choose(request.tenant, request.prompt, requests)

    def _replica(self, name: str) -> OrchestratorReplica:
        replica = self._replicas.get(name)
        if replica is None:
            replica = self._replicas[name] = OrchestratorReplica(
                self._launcher.launch,
                self._turns,
                tenant=name if self._options.strategy == "private" else "",
                patience=self._patience,
                on_started=partial(self._started, name),
                on_report=partial(self._reported, name),
                clock=self._clock,
            )
            replica.start()
            self._make_room()
        return replica

    def _started(self, name: str, seconds: float, again: bool) -> None:
        self._router.forget(name)
        self.starts.count(seconds, again)

    def _reported(self, name: str, report: StatsReport) -> None:
        if self._on_busy:
            self._on_busy(report.busy)
        if report.served and self._options.strategy == "shared":
            for other, replica in self._replicas.items():
                if other != name:
                    replica.tell_served(report.served)

    def _make_room(self) -> None:
        """Stop the orchestrators that have been idle longest: one for each tenant that waits, less those that leave."""
        wanted = len(self._replicas) - self._options.orchestrators
        idle = [tenant for tenant, replica in self._replicas.items() if replica.has_turn and not replica.busy]
        idle.sort(key=lambda tenant: self._replicas[tenant].idle_seconds(), reverse=True)
        for tenant in idle[: max(0, wanted)]:
            self._retire(tenant, _IDLED)

    def _everybody(self) -> list[OrchestratorReplica]:
        return [*self._replicas.values(), *self._replaced, *self._leaving.values()]

    def _replace(self, name: str) -> None:
        """Have another replica take the next requests, which starts elsewhere, at once; this one's go on."""
        replica = self._replicas.pop(name)
        self._router.forget(name)
        replica.hand_over(_REPLACED)
        self._replaced.append(replica)
        self._replica(name)

    def _retire(self, tenant: str, reason: str) -> None:
        self._router.forget(tenant)
        self._end(self._replicas.pop(tenant), reason)

    def _end(self, replica: OrchestratorReplica, reason: str) -> None:
        task = asyncio.create_task(self._leave(replica, reason))
        self._leaving[task] = replica
        task.add_done_callback(self._left)

    async def _leave(self, replica: OrchestratorReplica, reason: str) -> None:
        if self._refused is None:
            await replica.refresh()
        await replica.close(reason)

    def _left(self, task: asyncio.Task[None]) -> None:
        replica = self._leaving.pop(task)
        self._past += replica.stats
        if not task.cancelled() and (error := task.exception()):
            log.error("an orchestrator was not ended in order", exc_info=error)
