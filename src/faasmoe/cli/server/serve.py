"""`faasmoe serve`."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from faasmoe.cli.kernels import cache
from faasmoe.cli.options import Model
from faasmoe.cli.parameters import ServingParameters, grouped
from faasmoe.cli.server.access import Terms, bind, open_tenancy
from faasmoe.cli.server.announcer import Announcer
from faasmoe.cli.server.last_resort import LastResort
from faasmoe.cli.server.options import (
    AdminParameters,
    AllowControlTokens,
    DrainSeconds,
    EngineParameters,
    FleetParameters,
    Host,
    HttpParameters,
    LogFormat,
    LogLevel,
    Port,
    TenancyParameters,
)
from faasmoe.cli.server.service_manager import ServiceManager
from faasmoe.cli.server.signals import ENDING, EndedBySignals
from faasmoe.protocol.config import EngineOptions, ServingConfig

if TYPE_CHECKING:
    from faasmoe.cli.server.gateway import Doors, Gateway
    from faasmoe.platforms.registry import PlatformEntry


@grouped
def serve(
    *,
    model: Model = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    serving: ServingParameters,
    engine: EngineParameters,
    fleet: FleetParameters,
    tenancy: TenancyParameters,
    http: HttpParameters,
    allow_control_tokens: AllowControlTokens = False,
    admin: AdminParameters,
    drain_seconds: DrainSeconds = 30.0,
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Serve a model over an OpenAI-compatible HTTP API.

    Experts run as functions that start when a token is routed to them and stop when they idle.
    """
    from faasmoe.util import logs

    logs.configure("gateway", log_format, log_level)
    manager = ServiceManager.take(os.environ)
    entry = _platform(serving.platform)
    options, engine_options, fleet_options = serving.platform_options(entry), engine.options(), fleet.options()
    http_options = http.options()
    terms = _check(model, serving, tenancy)
    cache.apply(serving.quantize)
    resort = LastResort(ENDING)
    resort.start()
    announcer = Announcer(log_format)
    announcer.stage("starting")  # before there is a port: who connects to that gets an answer at once
    from faasmoe.cli.server.gateway import Gateway, GatewaySettings

    with ExitStack() as stack:
        doors = _open_doors(stack, host, port, admin, terms)  # first: nothing starts if a port is taken
        settings = GatewaySettings(
            config=partial(_config, model, serving, engine_options, http.generation_config == "auto"),
            platform=entry,
            platform_options=options,
            fleet=fleet_options,
            control=allow_control_tokens,
            drain=drain_seconds,
            http=http_options,
            http_keep_alive=http.http_keep_alive,
        )
        ended = EndedBySignals(resort)
        ended.run(_serve(Gateway(announcer, manager, settings, doors), ended, resort, announcer))


def _platform(name: str) -> PlatformEntry:
    """Raises `OptionError` if there is none of that name, or several processes cannot use it."""
    from faasmoe.platforms.registry import find

    entry = find(name)
    entry.require_connect("a server")
    return entry


def _check(model: str | None, serving: ServingParameters, tenancy: TenancyParameters) -> Terms:
    """Raises `OptionError` for what can be refused before anything starts."""
    from faasmoe.model.adapter import torch_build
    from faasmoe.model.checkpoint.source import is_hub_id, resolve

    serving.check_types()
    if not is_hub_id(model):  # else there is a config when it has been downloaded
        serving.check(resolve(model).folder)
    terms = Terms.of(tenancy)
    torch_build.warn()  # now that nothing is refused, which would be told in one line
    return terms


def _open_doors(stack: ExitStack, host: str, port: int, admin: AdminParameters, terms: Terms) -> Doors:
    """What the server listens on, until `stack` closes. Raises `OptionError` for an address that cannot be had."""
    from faasmoe.cli.server.gateway import Doors

    listener = stack.enter_context(bind("", host, port))
    for_admins = None
    if admin.admin_port is not None:
        for_admins = stack.enter_context(bind("admin-", admin.admin_host, admin.admin_port))
    return Doors(listener, for_admins, open_tenancy(terms, listener))


def _config(
    model: str | None, serving: ServingParameters, engine: EngineOptions, generation_config: bool
) -> ServingConfig:
    """The model and how to serve it. Downloads the model, which shows its own progress."""
    from faasmoe.model.checkpoint.source import resolve

    source = resolve(model)
    serving.check(source.folder)
    return ServingConfig(
        source.name,
        str(source.folder),
        block_size=serving.block_size,
        dtype=serving.dtype,
        quantize=serving.quantize,
        rope_scaling=serving.rope_scaling,
        max_model_len=serving.max_model_len,
        generation_config=generation_config,
        engine=engine,
    )


async def _serve(gateway: Gateway, ended: EndedBySignals, resort: LastResort, announcer: Announcer) -> None:
    try:
        await gateway.run(ended)
    except asyncio.CancelledError:
        resort.closed(ended.status)  # a download may go on in a thread
        raise
    announcer.stopped()
    resort.closed(0)
