"""Options of `faasmoe serve` alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from faasmoe.api.http_options import HttpOptions
from faasmoe.cli.numeric import MOST_COUNT, real, size, whole
from faasmoe.cli.options import Database, Prices
from faasmoe.errors import OptionError
from faasmoe.protocol.config import (
    DEFAULT_MOST,
    DEFAULT_ORCHESTRATOR_KEEP_ALIVE,
    MOST_ORCHESTRATORS,
    MOST_SHARED,
    EngineOptions,
    FleetOptions,
)
from faasmoe.util import logs
from faasmoe.util.logs import Format

_ENGINE = EngineOptions()

_LONGEST_DRAIN = 86400  # seconds
_LONGEST_KEEP_ALIVE = 3600  # seconds
_LONGEST_GAP = 60  # seconds between two tokens
_MOST_PORT = 65535

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, whole(0, _MOST_PORT, help="Port to listen on; 0 takes a free one.")]
KvCacheMemory = Annotated[
    int | None,
    size(
        ours=True,
        help="Memory for the KV caches of all sequences, such as 2GiB. When it is full, sequences are preempted and "
        "recomputed later. Default: a fifth of the memory that is available at start to this process's control group.",
        show_default=False,
    ),
]
MaxSequences = Annotated[
    int, whole(1, MOST_COUNT, help="Most sequences in one step; others take turns with them.")
]
MaxStepTokens = Annotated[int, whole(1, MOST_COUNT, help="Most tokens in one step, of prompts and completions.")]
InterTokenLatency = Annotated[
    float,
    real(
        0,
        _LONGEST_GAP,
        above=True,
        help="Target for the seconds between two tokens of a response while prompts run beside it. The prompts run "
        "in chunks of as many tokens as the target allows, at least 64, and in whole steps only while no response is "
        "generated.",
    ),
]
Speculation = Annotated[
    Literal["ngram", "off"],
    typer.Option(
        help="Guess tokens from text that repeats, and verify several in one step. ngram: for requests where it makes "
        "tokens come faster, which is measured; texts stay the same. off: one token a step."
    ),
]
Strategy = Annotated[
    Literal["shared", "private"],
    typer.Option(
        help="Orchestrators, the processes with the KV cache and the scheduler: "
        "shared has --orchestrators for all tenants, private one for each tenant. Functions and the dense weights are "
        "shared in any case."
    ),
]
OrchestratorKeepAlive = Annotated[
    float,
    real(
        0,
        math.inf,
        help="Seconds without a request after which an orchestrator is stopped. The template, the process that "
        "holds the model, is stopped after the same time again. inf: never.",
    ),
]
Orchestrators = Annotated[
    int | None,
    whole(
        1,
        MOST_SHARED,
        help="With --strategy shared, orchestrators that serve all tenants; they share --kv-cache-memory. A request "
        "goes to the one that has run the beginning of its prompt, unless others have much less to do. Default: 1.",
        show_default=False,
    ),
]
MaxOrchestrators = Annotated[
    int | None,
    whole(
        1,
        MOST_ORCHESTRATORS,
        help="With --strategy private, most orchestrators at a time; they share --kv-cache-memory. At the limit, a "
        "new tenant's orchestrator replaces the one that has idled longest; if none idles, requests wait. "
        f"Default: {DEFAULT_MOST}.",
        show_default=False,
    ),
]
Open = Annotated[
    bool,
    typer.Option(
        "--open",
        help="Take requests without a key while there is no tenant. Not needed on loopback, as long as the database "
        "never had a tenant. Once there is a tenant, every request needs a key.",
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
ServedModelName = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Name of the model in the API, instead of its own; may be given several times. Responses have the first.",
        show_default=False,
    ),
]
GenerationConfig = Annotated[
    Literal["auto", "none"],
    typer.Option(
        help="Defaults of sampling for requests that state none. auto: temperature, top_p, top_k, min_p and "
        "repetition_penalty of the checkpoint's generation_config.json. none: neutral values."
    ),
]
UnknownFieldsOption = Annotated[
    Literal["refuse", "ignore"],
    typer.Option(
        "--unknown-fields",
        help="What becomes of a body's fields that the API does not know: refuse with status 400, or ignore, and name "
        "them in the response's header X-Ignored-Fields.",
    ),
]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Origin whose web pages may call the API, such as https://example.org, or *; may be given several times. "
        "Default: none.",
        show_default=False,
    ),
]
RootPath = Annotated[
    str,
    typer.Option(
        metavar="PATH", help="Path below which a proxy serves the API, such as /llm.", show_default=False
    ),
]
HttpKeepAlive = Annotated[
    float,
    real(0, _LONGEST_KEEP_ALIVE, above=True, help="Seconds after which an idle connection of a client is closed."),
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


def _log_as(form: Format) -> Format:
    """Called before other options are checked, so that errors about these are JSON as well."""
    if form == "json":
        logs.configure("gateway", form, "info")
    return form


LogFormat = Annotated[
    Format,
    typer.Option(
        help="Form of log lines, which go to standard error. With json, stages of the start and errors are log lines.",
        is_eager=True,
        callback=_log_as,
    ),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option(help="Least severity of log lines. At info there is one for each request."),
]


@dataclass(frozen=True, kw_only=True)
class EngineParameters:
    """The engine of each orchestrator."""

    kv_cache_memory: KvCacheMemory = None
    max_sequences: MaxSequences = _ENGINE.max_sequences
    max_step_tokens: MaxStepTokens = _ENGINE.max_step_tokens
    inter_token_latency: InterTokenLatency = _ENGINE.inter_token_latency
    speculation: Speculation = _ENGINE.speculation

    def options(self) -> EngineOptions:
        """Raises `OptionError` if a value is out of range."""
        return EngineOptions(
            kv_cache_bytes=self.kv_cache_memory,
            max_sequences=self.max_sequences,
            max_step_tokens=self.max_step_tokens,
            inter_token_latency=self.inter_token_latency,
            speculation=self.speculation,
        )


@dataclass(frozen=True, kw_only=True)
class FleetParameters:
    """The orchestrators."""

    strategy: Strategy = "shared"
    orchestrators: Orchestrators = None
    orchestrator_keep_alive: OrchestratorKeepAlive = DEFAULT_ORCHESTRATOR_KEEP_ALIVE
    max_orchestrators: MaxOrchestrators = None

    def options(self) -> FleetOptions:
        """Raises `OptionError` if a value is out of range, or of no use with the strategy."""
        most, shared = self.max_orchestrators, self.orchestrators
        if most is not None and self.strategy == "shared":
            raise OptionError(f"--max-orchestrators {most}: with --strategy shared it is --orchestrators")
        if shared is not None and self.strategy == "private":
            raise OptionError(f"--orchestrators {shared}: with --strategy private it is --max-orchestrators")
        return FleetOptions(
            self.strategy,
            self.orchestrator_keep_alive,
            most=DEFAULT_MOST if most is None else most,
            shared=1 if shared is None else shared,
        )


@dataclass(frozen=True, kw_only=True)
class TenancyParameters:
    """Tenants, their prices, and clients without a tenant."""

    database: Database = None
    prices: Prices = None
    open_: Open = False
    trusted_proxies: TrustedProxies = None


@dataclass(frozen=True, kw_only=True)
class HttpParameters:
    """The HTTP API."""

    served_model_name: ServedModelName = None
    generation_config: GenerationConfig = "auto"
    unknown_fields: UnknownFieldsOption = "refuse"
    cors_origin: CorsOrigin = None
    root_path: RootPath = ""
    http_keep_alive: HttpKeepAlive = 5.0

    def options(self) -> HttpOptions:
        """Raises `OptionError` if a value is out of range."""
        return HttpOptions(
            names=tuple(self.served_model_name or ()),
            unknown_fields=self.unknown_fields,
            cors_origins=tuple(self.cors_origin or ()),
            root_path=self.root_path,
        )


@dataclass(frozen=True, kw_only=True)
class AdminParameters:
    """The admin API."""

    admin_host: AdminHost = "127.0.0.1"
    admin_port: AdminPort = None
