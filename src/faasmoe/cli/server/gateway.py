"""Starts and stops what `faasmoe serve` is made of: in order, and in time."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faasmoe.api.http.entrance import Entrance
from faasmoe.api.http.health import Health, Parts
from faasmoe.api.http.server import HttpServer
from faasmoe.cli.kernels.idle_calibration import measure_when_idle
from faasmoe.cli.server.access import url_of
from faasmoe.cli.server.announcer import Announcer, Greeting
from faasmoe.cli.server.in_time import in_time, on_thread
from faasmoe.cli.server.last_resort import LONGEST_CLOSE, kill_children
from faasmoe.errors import SHUTTING_DOWN
from faasmoe.util.gc_freeze import importing

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from faasmoe.api.http_options import HttpOptions
    from faasmoe.api.metering.request_meter import RequestMeters
    from faasmoe.cli.server.service_manager import ServiceManager
    from faasmoe.cli.server.signals import EndedBySignals
    from faasmoe.fleet.fleet import Fleet
    from faasmoe.fleet.launcher import Launcher
    from faasmoe.platforms.base import Platform
    from faasmoe.platforms.registry import PlatformEntry
    from faasmoe.protocol.config import FleetOptions, ServingConfig
    from faasmoe.readers.pool import Readers
    from faasmoe.tenancy.service import TenancyService

log = logging.getLogger(__name__)

# seconds that parts may take to close; `last_resort.CLOSE_SECONDS` is for all of them
_HTTP, _METERS, _IDLE, _FLEET, _READERS, _OFFICE, _PLATFORM = 3.0, 0.4, 0.4, 1.8, 0.5, 1.5, 1.2


@dataclass(frozen=True)
class Doors:
    """The listening sockets of a server, and the tenancy that guards them."""

    listener: socket.socket
    admin: socket.socket | None
    tenancy: AbstractContextManager[TenancyService]

    @property
    def sockets(self) -> list[socket.socket]:
        """All listening sockets."""
        return [each for each in (self.listener, self.admin) if each]


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """The options of a server.

    `control`: users may spell control tokens. `drain` is for how many seconds requests may go on when the server ends.
    """

    config: Callable[[], ServingConfig]  # may block, and download the model
    platform: PlatformEntry
    platform_options: Any  # as `PlatformEntry.parse` returns them
    fleet: FleetOptions
    control: bool
    drain: float
    http: HttpOptions
    http_keep_alive: float  # seconds of an idle connection


class Gateway:
    """A server from its start to its end."""

    def __init__(
        self, announcer: Announcer, manager: ServiceManager, settings: GatewaySettings, doors: Doors
    ) -> None:
        self._announcer = announcer
        self._manager = manager
        self._settings = settings
        self._doors = doors
        self._health = Health()
        self._entrance = Entrance(self._health)
        self._meters: RequestMeters | None = None

    async def run(self, ended: EndedBySignals) -> None:
        """Serve until signals end it. Raises what keeps it from starting. Nothing is left running either way."""
        server = HttpServer(self._entrance, self._settings.drain, self._settings.http_keep_alive)
        async with AsyncExitStack() as stack:
            serving = await stack.enter_async_context(self._http(server))
            beating = asyncio.create_task(self._manager.beat())
            stack.callback(beating.cancel)
            self._announcer.stage(f"listening at {url_of(self._doors.listener)}; looking for the model")
            config = await asyncio.to_thread(self._settings.config)
            fleet, tenancy = await self._start(stack, config)
            measuring = asyncio.create_task(measure_when_idle(lambda: fleet.busy))
            stack.callback(measuring.cancel)
            with ended.by(lambda: self._end(server), self._settings.drain):
                self._manager.ready()
                doors = self._doors
                self._announcer.ready(
                    Greeting(
                        model=config.name,
                        about=fleet.about,
                        listener=doors.listener,
                        admin=doors.admin,
                        tenancy=tenancy,
                    )
                )
                await serving
            await self._settle()

    def _end(self, server: HttpServer) -> None:
        """A signal has come."""
        self._manager.stopping(self._settings.drain + LONGEST_CLOSE)
        server.end()

    @asynccontextmanager
    async def _http(self, server: HttpServer) -> AsyncIterator[asyncio.Task[None]]:
        """Requests are answered in here, at first with 503."""
        serving = asyncio.create_task(server.serve(sockets=self._doors.sockets))
        try:
            yield serving
        finally:
            self._entrance.close(SHUTTING_DOWN)
            server.should_exit = True
            await asyncio.wait([serving], timeout=_HTTP)

    async def _start(self, stack: AsyncExitStack, config: ServingConfig) -> tuple[Fleet, TenancyService]:
        """Everything behind HTTP; requests are taken when this returns."""
        from faasmoe.experts import PRELOAD
        from faasmoe.fleet.launcher import TemplateClient
        from faasmoe.fleet.placed_launcher import PlacedLauncher
        from faasmoe.orchestrator.template import TOKENIZER
        from faasmoe.protocol.messages import Start
        from faasmoe.util.folders.run_folder import RunFolder

        self._stage("starting the daemon of functions")
        folder = stack.enter_context(RunFolder()).path
        settings = self._settings
        made = _Made(lambda: settings.platform.start(settings.platform_options, PRELOAD))
        platform = await stack.enter_async_context(on_thread("the platform", _PLATFORM, made, kill_children))
        for sentence in platform.capabilities.missing():
            log.warning("--platform %s: %s", settings.platform.name, sentence)
        self._stage(f"loading {config.name}")
        start = Start(config, settings.platform.name, platform.address, str(folder), settings.fleet.orchestrators)
        template = TemplateClient(start)
        stack.callback(template.close)
        template.begin()
        nodes = settings.platform.nodes(platform) if settings.platform.nodes else None
        launcher = PlacedLauncher(template, nodes, start) if nodes else template
        readers = await self._readers(stack)
        await asyncio.to_thread(_imports)  # while it loads the model
        tenancy = await stack.enter_async_context(on_thread("the ledger", _OFFICE, self._doors.tenancy))
        fleet = await self._fleet(stack, config.name, launcher, platform, tenancy)
        about = await fleet.ready()
        self._stage("giving its tokenizer to the readers")
        await readers.load(folder / TOKENIZER, settings.http.bounds(config.name, about))
        self._open(config.name, fleet, readers, platform, tenancy)
        return fleet, tenancy

    async def _fleet(
        self,
        stack: AsyncExitStack,
        name: str,
        launcher: Launcher,
        platform: Platform,
        tenancy: TenancyService,
    ) -> Fleet:
        from faasmoe.api.metering.idle_meter import IdleMeter
        from faasmoe.fleet.fleet import Fleet

        meter = IdleMeter(platform.status, tenancy.record, name, tenancy.idle_failures, clock=tenancy.calendar)
        idle = await stack.enter_async_context(in_time("the meter of idle instances", _IDLE, meter))
        stack.push_async_callback(self._settle)
        fleet = Fleet(launcher, self._settings.fleet, on_busy=idle.note)
        return await stack.enter_async_context(in_time("the orchestrators", _FLEET, fleet))

    async def _readers(self, stack: AsyncExitStack) -> Readers:
        from faasmoe.readers.pool import Readers

        readers = Readers(self._settings.control)
        return await stack.enter_async_context(in_time("the readers", _READERS, readers))

    def _open(
        self, name: str, fleet: Fleet, readers: Readers, platform: Platform, tenancy: TenancyService
    ) -> None:
        """Take requests."""
        from faasmoe.api.admin import ListenerRouter, create_admin_app
        from faasmoe.api.app import create_app
        from faasmoe.api.metrics.metrics import Metrics

        metrics = Metrics(fleet, platform.status, tenancy)
        made = create_app(name, fleet, readers, metrics, tenancy, options=self._settings.http)
        self._meters = made.state.meters
        app: ASGIApp = made
        if self._doors.admin is not None:
            admin, its = create_admin_app(tenancy, metrics), self._doors.admin.getsockname()
            app = ListenerRouter(app, admin, self._doors.listener.getsockname(), its)
        tenancy.warn()
        self._entrance.open(app, fleet.cut)
        self._health.parts = Parts(
            orchestrators=lambda: fleet.state,
            functions=lambda: platform.state,
            ledger=lambda: _UNWRITTEN if tenancy.failing else None,
            open=lambda: tenancy.authentication.open,
        )

    async def _settle(self) -> None:
        """Write the usage of requests to the ledger, as far as it is known."""
        if self._meters is not None:
            with suppress(TimeoutError):  # what is still unknown is recorded when orchestrators have ended
                async with asyncio.timeout(_METERS):
                    await self._meters.settled()

    def _stage(self, text: str) -> None:
        self._health.stage = text
        self._manager.status(text)
        self._announcer.stage(text)


_UNWRITTEN = "what requests use cannot be written to the ledger now; it is kept until it can"


class _Made(AbstractContextManager["Platform"]):
    """A platform that is started when this is entered, and closed when it is left."""

    def __init__(self, make: Callable[[], Platform]) -> None:
        self._make = make

    def __enter__(self) -> Platform:
        self._platform = self._make()
        return self._platform

    def __exit__(self, *_: object) -> None:
        self._platform.close()


def _imports() -> None:
    """Import the modules that take long."""
    with importing():
        from faasmoe.api import admin, app
        from faasmoe.fleet import fleet
        from faasmoe.orchestrator import template

        del admin, app, fleet, template
