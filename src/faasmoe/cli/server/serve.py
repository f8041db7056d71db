"""`faasmoe serve`."""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from faasmoe.cli.numeric import real, whole
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
)
from faasmoe.cli.platforms import PlatformName, PlatformOptions, platform_options
from faasmoe.cli.server.access import bind, open_tenancy, terms_of
from faasmoe.cli.server.last_resort import LastResort
from faasmoe.cli.server.service_manager import ServiceManager
from faasmoe.cli.server.signals import ENDING, EndedBySignals
from faasmoe.cli.stages import Stages
from faasmoe.protocol.config import MOST_ORCHESTRATORS

if TYPE_CHECKING:
    from faasmoe.cli.server.gateway import Gateway
    from faasmoe.protocol.config import ServingConfig

_LONGEST_DRAIN = 86400  # seconds
_MOST_PORT = 65535

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, whole(0, _MOST_PORT, help="Port to listen on; 0 takes a free one.")]
Strategy = Annotated[
    Literal["shared", "private"],
    typer.Option(
        help="Orchestrators, the processes with the KV cache and the scheduler: "
        "shared has one for all tenants, private one for each tenant. Functions and the dense weights are shared in "
        "any case."
    ),
]
OrchestratorKeepAlive = Annotated[
    float,
    real(
        0,
        math.inf,
        help="Seconds without a request after which an orchestrator is stopped, and as many more after which the "
        "model is unloaded; inf: never.",
    ),
]
MaxOrchestrators = Annotated[
    int | None,
    whole(
        1,
        MOST_ORCHESTRATORS,
        help="With --strategy private, most orchestrators at a time; they share --kv-cache-memory. One more "
        "takes the place of one that idles, or waits. Default: 8.",
        show_default=False,
    ),
]
Open = Annotated[
    bool,
    typer.Option(
        "--open",
        help="Without any tenant, let everybody in who reaches the server. Not needed on loopback, as long as the "
        "database never had a tenant. The first tenant closes the server.",
    ),
]
TrustedProxies = Annotated[
    str | None,
    typer.Option(
        metavar="NETWORKS",
        help="Addresses of proxies whose X-Forwarded-For is believed, such as 127.0.0.1,10.0.0.0/8. Default: none.",
        show_default=False,
    ),
]
AllowControlTokens = Annotated[
    bool,
    typer.Option(
        "--allow-control-tokens",
        help="Let texts of prompts and messages spell control tokens, such as <|im_start|>. Without, they are encoded "
        "as ordinary text, so that no user can forge a turn of a conversation.",
    ),
]
AdminHost = Annotated[str, typer.Option(help="Address of the admin API.")]
AdminPort = Annotated[
    int | None,
    whole(
        0,
        _MOST_PORT,
        help="Port of the admin API, for tenants, keys and usage; 0 takes a free one. Without it there is none.",
        show_default=False,
    ),
]
DrainSeconds = Annotated[
    float,
    real(
        0,
        _LONGEST_DRAIN,
        help="Seconds that running requests may go on when the server is told to end; 0 cuts them off at once. "
        "The server is gone 5 seconds later at most, and a second signal ends it at once.",
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
    platform: PlatformName = "local",
    platform_option: PlatformOptions = None,
    keep_alive: KeepAlive = None,
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
    open_: Open = False,
    trusted_proxies: TrustedProxies = None,
    allow_control_tokens: AllowControlTokens = False,
    admin_host: AdminHost = "127.0.0.1",
    admin_port: AdminPort = None,
    drain_seconds: DrainSeconds = 30.0,
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Serve a model over an OpenAI-compatible HTTP API.

    Experts run as functions that start when a token is routed to them and stop when they idle.
    """
    from faasmoe.model.adapter import torch_build
    from faasmoe.model.checkpoint.source import is_hub_id, resolve
    from faasmoe.model.config.facts import ConfigFacts, check_types
    from faasmoe.platforms.registry import find
    from faasmoe.util import logs

    logs.configure("gateway", log_format, log_level)
    manager = ServiceManager.take(os.environ)
    console = Console(soft_wrap=True, highlight=False)
    stages = Stages(console)
    entry = find(platform)
    entry.require_connect("a server")
    options = platform_options(entry, platform_option, keep_alive, memory_budget, release_page_cache)
    engine = engine_options(kv_cache_memory, max_sequences, max_step_tokens)
    fleet = fleet_options(strategy, orchestrator_keep_alive, max_orchestrators)
    check_types(dtype, quantize)
    if not is_hub_id(model):  # else there is a config when it has been downloaded
        ConfigFacts.read(resolve(model).folder).check(block_size, max_model_len)
    terms = terms_of(database, prices, trusted_proxies)
    torch_build.warn()  # now that nothing is refused, which would be told in one line

    def config() -> ServingConfig:
        from faasmoe.protocol.config import ServingConfig

        source = resolve(model)  # a download shows its own progress
        ConfigFacts.read(source.folder).check(block_size, max_model_len)
        return ServingConfig(source.name, str(source.folder), block_size, dtype, quantize, max_model_len, engine)

    resort = LastResort(ENDING)
    resort.start()
    stages.begin("starting")  # before there is a port: who connects to that gets an answer at once
    from faasmoe.cli.server.gateway import Doors, Gateway, GatewaySettings

    with ExitStack() as stack:
        listener = stack.enter_context(bind("", host, port))  # first of all: nothing starts if the port is taken
        admin = None if admin_port is None else stack.enter_context(bind("admin-", admin_host, admin_port))
        tenancy = open_tenancy(database, terms, listener, open_)
        settings, doors = (
            GatewaySettings(config, entry, options, fleet, allow_control_tokens, drain_seconds),
            Doors(listener, admin, tenancy),
        )
        ended = EndedBySignals(resort)
        ended.run(_serve(Gateway(console, stages, manager, settings, doors), ended, resort, console))


async def _serve(gateway: Gateway, ended: EndedBySignals, resort: LastResort, console: Console) -> None:
    try:
        await gateway.run(ended)
    except asyncio.CancelledError:
        resort.closed(ended.status)  # a download may go on in a thread
        raise
    console.print("stopped")
    resort.closed(0)
