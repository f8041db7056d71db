"""`faasmoe serve`."""

from __future__ import annotations

import json
import socket
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from faasmoe.cli.access import bind, is_loopback, open_office, url_of, who_may
from faasmoe.cli.options import (
    BlockSize,
    Database,
    Dtype,
    KeepAlive,
    KvCacheMemory,
    MaxModelLen,
    MaxSequences,
    MaxStepTokens,
    MemoryBudget,
    Model,
    Prices,
    Quantize,
    ReleasePageCache,
    engine_options,
    fleet_options,
    platform_options,
)
from faasmoe.cli.signals import EndedBySignals

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from faasmoe.orchestrator.config import About, FleetOptions, ServingConfig
    from faasmoe.platforms.local.options import LocalOptions
    from faasmoe.tenancy.office import Office


Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)]
Strategy = Annotated[
    Literal["shared", "private"],
    typer.Option(
        help="Who has an orchestrator, the process that holds keys and values and takes turns between requests: "
        "all tenants one, or each tenant its own. Functions and the dense weights are shared in any case."
    ),
]
OrchestratorKeepAlive = Annotated[
    float,
    typer.Option(
        help="Seconds without a request after which an orchestrator is stopped, and as many more after which the "
        "model is unloaded; inf: never.",
    ),
]
MaxOrchestrators = Annotated[
    int | None,
    typer.Option(
        help="With --strategy private, most orchestrators at a time; they share --kv-cache-memory. One more "
        "takes the place of one that idles, or waits. Default: 8.",
        min=1,
        show_default=False,
    ),
]
AllowAnonymous = Annotated[
    bool,
    typer.Option(
        "--allow-anonymous", help="Without any tenant, let everybody in who reaches the server, from anywhere."
    ),
]
AdminHost = Annotated[str, typer.Option(help="Address of the admin API.")]
AdminPort = Annotated[
    int | None,
    typer.Option(
        help="Port of the admin API, for tenants, keys and usage; 0 takes a free one. Without it there is none.",
        min=0,
        max=65535,
        show_default=False,
    ),
]
LogFormat = Annotated[Literal["text", "json"], typer.Option(help="Form of log lines, which go to standard error.")]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option(help="Least severity of log lines. At info there is one for each request."),
]


def serve(
    model: Model = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    block_size: BlockSize = None,
    keep_alive: KeepAlive = 60.0,
    max_model_len: MaxModelLen = None,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    memory_budget: MemoryBudget = None,
    release_page_cache: ReleasePageCache = False,
    kv_cache_memory: KvCacheMemory = None,
    max_sequences: MaxSequences = 64,
    max_step_tokens: MaxStepTokens = 512,
    strategy: Strategy = "shared",
    orchestrator_keep_alive: OrchestratorKeepAlive = 300.0,
    max_orchestrators: MaxOrchestrators = None,
    database: Database = None,
    prices: Prices = None,
    allow_anonymous: AllowAnonymous = False,
    admin_host: AdminHost = "127.0.0.1",
    admin_port: AdminPort = None,
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Serve a model over an OpenAI-compatible HTTP API.

    Experts run as functions that start when a token is routed to them and stop when they idle.
    """
    from faasmoe import logs

    logs.configure("gateway", log_format, log_level)
    console = Console(soft_wrap=True, highlight=False)
    options = platform_options(keep_alive, memory_budget, release_page_cache)
    engine = engine_options(kv_cache_memory, max_sequences, max_step_tokens)
    fleet = fleet_options(strategy, orchestrator_keep_alive, max_orchestrators)
    with ExitStack() as stack:
        listener = stack.enter_context(bind("", host, port))  # first of all: nothing starts if the port is taken
        admin = None if admin_port is None else stack.enter_context(bind("admin-", admin_host, admin_port))
        office = open_office(database, prices, listener, allow_anonymous)
        with console.status("starting"):
            from faasmoe.model.source import resolve
            from faasmoe.orchestrator.config import ServingConfig

        source = resolve(model)  # a download shows its own progress
        config = ServingConfig(source.name, str(source.folder), block_size, dtype, quantize, max_model_len, engine)
        ended = EndedBySignals()
        ended.run(_serve(console, config, options, fleet, Doors(listener, admin, office), ended))
    console.print("stopped")


@dataclass(frozen=True)
class Doors:
    """Where a server is reached, and who will watch the doors."""

    listener: socket.socket
    admin: socket.socket | None
    office: AbstractContextManager[Office]


async def _serve(
    console: Console,
    config: ServingConfig,
    options: LocalOptions,
    orchestrators: FleetOptions,
    doors: Doors,
    ended: EndedBySignals,
) -> None:
    """The gateway, with the platform and orchestrators started for it and stopped after it."""
    from faasmoe.orchestrator.messages import Start
    from faasmoe.orchestrator.pool import local_platform
    from faasmoe.orchestrator.template_client import TemplateClient
    from faasmoe.platforms.local.run_folder import RunFolder
    from faasmoe.starting import importing

    with ExitStack() as stack, console.status(f"starting {config.name}") as shown:
        folder = stack.enter_context(RunFolder()).path
        platform = stack.enter_context(local_platform(options))
        launcher = TemplateClient(Start(config, str(platform.folder), str(folder), orchestrators.orchestrators))
        stack.callback(launcher.close)
        launcher.begin()
        with importing():  # while it loads the model
            office = stack.enter_context(doors.office)
            from faasmoe.api.admin import ByPort, create_admin_app
            from faasmoe.api.app import create_app
            from faasmoe.api.http_server import HttpServer
            from faasmoe.api.idle_meter import IdleMeter
            from faasmoe.api.metrics import Metrics
            from faasmoe.api.texts import Texts
            from faasmoe.model.tokenizer import Tokenizer
            from faasmoe.orchestrator.fleet import Fleet
            from faasmoe.orchestrator.template import TOKENIZER

            Tokenizer.prepare()

        async with (
            IdleMeter(platform.status, office.record, config.name) as idle,
            Fleet(launcher, orchestrators, on_busy=idle.note) as fleet,
        ):
            texts = Texts(Tokenizer.saved(folder / TOKENIZER), fleet.about.vocabulary)
            metrics = Metrics(fleet, platform.status, office)
            app: ASGIApp = create_app(config.name, fleet, texts, metrics, office)
            if doors.admin is not None:
                app = ByPort(app, create_admin_app(office, metrics), doors.admin.getsockname()[1])
            shown.stop()
            server = HttpServer(app, fleet, lambda: _greet(console, config.name, fleet.about, doors, office))
            with ended.by(server.end):
                await server.serve(sockets=[each for each in (doors.listener, doors.admin) if each])


def _greet(console: Console, name: str, about: About, doors: Doors, office: Office) -> None:
    url = url_of(doors.listener)
    key = "" if office.authentication.open else " -H 'Authorization: Bearer KEY'"
    body = json.dumps({"model": name, "prompt": "It was a dark night, and", "max_tokens": 60, "temperature": 0.6})
    console.print(
        f"[bold green]ready[/] {name} ({about.architecture}) at [bold]{url}[/]\n"
        f"{about.layers} layers of experts in {about.functions} functions, none running yet"
    )
    if doors.admin is not None:
        console.print(f"the admin API is at {url_of(doors.admin)}")
    style = "" if is_loopback(doors.listener) or not office.authentication.open else "yellow"
    console.print(who_may(office, doors.listener), style=style)
    console.print("try it:")
    console.print(f"curl {url}/v1/completions{key} -H 'Content-Type: application/json' -d '{body}'", markup=False)
