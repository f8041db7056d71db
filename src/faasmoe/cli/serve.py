"""`faasmoe serve`."""

from __future__ import annotations

import ipaddress
import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from faasmoe.cli.options import (
    BlockSize,
    Dtype,
    KeepAlive,
    KvCacheMemory,
    MaxModelLen,
    MaxSequences,
    MaxStepTokens,
    MemoryBudget,
    Model,
    Quantize,
    ReleasePageCache,
    engine_options,
    fleet_options,
    platform_options,
)
from faasmoe.cli.signals import EndedBySignals
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.orchestrator.config import About, FleetOptions, ServingConfig
    from faasmoe.platforms.local.options import LocalOptions

_BACKLOG = 2048


def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
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
    strategy: Annotated[
        Literal["shared", "private"],
        typer.Option(
            help="Who has an orchestrator, the process that holds keys and values and takes turns between requests: "
            "all tenants one, or each tenant its own. Functions and the dense weights are shared in any case."
        ),
    ] = "shared",
    orchestrator_keep_alive: Annotated[
        float,
        typer.Option(
            help="Seconds without a request after which an orchestrator is stopped, and as many more after which the "
            "model is unloaded; inf: never.",
        ),
    ] = 300.0,
    max_orchestrators: Annotated[
        int | None,
        typer.Option(
            help="With --strategy private, most orchestrators at a time; they share --kv-cache-memory. One more "
            "takes the place of one that idles, or waits. Default: 8.",
            min=1,
            show_default=False,
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Form of log lines, which go to standard error.")
    ] = "text",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(help="Least severity of log lines. At info there is one for each request."),
    ] = "info",
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
    with _bind(host, port) as listener:  # first of all: nothing is started if the port is taken
        with console.status("starting"):
            from faasmoe.model.source import resolve
            from faasmoe.orchestrator.config import ServingConfig

        source = resolve(model)  # a download shows its own progress
        config = ServingConfig(source.name, str(source.folder), block_size, dtype, quantize, max_model_len, engine)
        ended = EndedBySignals()
        ended.run(_serve(console, config, options, fleet, listener, ended))
    console.print("stopped")


async def _serve(
    console: Console,
    config: ServingConfig,
    options: LocalOptions,
    orchestrators: FleetOptions,
    listener: socket.socket,
    ended: EndedBySignals,
) -> None:
    """The gateway, with the platform and orchestrators started for it and stopped after it."""
    from faasmoe.api.app import create_app
    from faasmoe.api.http_server import HttpServer
    from faasmoe.api.metrics import Metrics
    from faasmoe.api.texts import Texts
    from faasmoe.model.tokenizer import Tokenizer
    from faasmoe.orchestrator.fleet import Fleet
    from faasmoe.orchestrator.messages import Start
    from faasmoe.orchestrator.pool import local_platform
    from faasmoe.orchestrator.template import TOKENIZER
    from faasmoe.orchestrator.template_client import TemplateClient
    from faasmoe.platforms.local.run_folder import RunFolder

    with RunFolder() as folder, local_platform(options) as platform, ExitStack() as shown:
        shown.enter_context(console.status(f"starting {config.name}"))
        start = Start(config, str(platform.folder), str(folder.path), orchestrators.orchestrators)
        async with Fleet(TemplateClient(start), orchestrators) as fleet:
            texts = Texts(Tokenizer.saved(folder.path / TOKENIZER), fleet.about.vocabulary)
            app = create_app(config.name, fleet, texts, Metrics(fleet, platform.status))
            shown.close()
            server = HttpServer(app, fleet, lambda: _greet(console, config.name, fleet.about, listener))
            with ended.by(server.end):
                await server.serve(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OptionError(
            f"--host {host} --port {port}: cannot listen there: {error.strerror or error}"
        ) from error
    return listener


def _greet(console: Console, name: str, about: About, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    if not ipaddress.ip_address(host).is_loopback:
        console.print(f"[yellow]there are no keys yet: whoever reaches {host}:{port} can use this server[/]")
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    body = json.dumps({"model": name, "prompt": "It was a dark night, and", "max_tokens": 60, "temperature": 0.6})
    console.print(
        f"[bold green]ready[/] {name} ({about.architecture}) at [bold]{url}[/]\n"
        f"{about.layers} layers of experts in {about.functions} functions, none running yet\n"
        f"try it:"
    )
    console.print(f"curl {url}/v1/completions -H 'Content-Type: application/json' -d '{body}'", markup=False)
