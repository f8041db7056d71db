"""Options of a model, of its engines and of the fleet, as orchestrators are started with them."""

from __future__ import annotations

import sys
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Literal, get_args

from faasmoe.errors import OptionError

Strategy = Literal["shared", "private"]
Speculation = Literal["ngram", "off"]

DEFAULT_ORCHESTRATOR_KEEP_ALIVE = 300.0
DEFAULT_MOST = 8
MOST_ORCHESTRATORS = 1000
MOST_SHARED = 64  # orchestrators that serve all tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Memory of an engine, and the sizes of its steps and queue.

    `inter_token_latency` is what prompts may make of the gap between two tokens of a response: a step takes as many of
    their tokens as that allows (`engine.prompt_budget`), and `max_step_tokens` of them while nobody decodes.

    Raises `OptionError` naming the option if a value is out of range.
    """

    kv_cache_bytes: int | None = None  # for all sequences; None: a share of free memory
    max_step_tokens: int = 512  # tokens a step
    max_sequences: int = 64  # sequences a step; others take turns with them or wait
    max_waiting: int = 1024  # sequences that may wait; more are refused
    inter_token_latency: float = 0.3  # seconds of a step with decodes, at which prompts in it aim
    speculation: Speculation = "ngram"  # whether drafts from the text itself are verified, where that pays

    def __post_init__(self) -> None:
        if self.speculation not in (kinds := get_args(Speculation)):
            raise OptionError(f"speculation is {self.speculation!r}: must be one of {', '.join(kinds)}")
        if not self.inter_token_latency > 0:
            raise OptionError(f"inter_token_latency is {self.inter_token_latency}: must be above 0 seconds")
        for option in fields(self)[:-2]:
            value = getattr(self, option.name)
            if value is not None and not 1 <= value <= sys.maxsize:  # so that NaN is refused
                raise OptionError(f"{option.name} is {value}: must be 1 to {sys.maxsize}")


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """A model and how to serve it. Simple fields only: it travels between processes."""

    name: str  # under which it is served
    folder: str  # of the checkpoint
    _: KW_ONLY
    block_size: int | None = None  # None: the default
    dtype: str = "auto"
    quantize: str | None = None
    rope_scaling: str | None = None  # JSON
    max_model_len: int | None = None  # None: the model's context, or what the KV cache holds
    generation_config: bool = True  # defaults of sampling are the checkpoint's
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True, slots=True)
class About:
    """Facts of a loaded model."""

    architecture: str
    layers: int  # with routed experts
    functions: int
    vocabulary: int
    max_model_len: int  # the served context: tokens of prompt and completion together
    kv_cache_bytes: int = 0  # of each orchestrator
    sampling: dict[str, float] = field(
        default_factory=dict
    )  # the checkpoint's defaults of `SamplingParams`' fields


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The strategy and the life of orchestrators. Raises `OptionError` naming the option that is out of range."""

    strategy: Strategy = "shared"
    keep_alive: float = DEFAULT_ORCHESTRATOR_KEEP_ALIVE  # idle seconds; infinity: it stays
    most: int = DEFAULT_MOST  # orchestrators at a time, where each tenant has one
    shared: int = 1  # orchestrators at a time, where they serve all tenants

    def __post_init__(self) -> None:
        if not self.keep_alive >= 0:
            raise OptionError(f"--orchestrator-keep-alive {self.keep_alive}: must be at least 0 seconds, or inf")
        if not 1 <= self.most <= MOST_ORCHESTRATORS:
            raise OptionError(f"--max-orchestrators {self.most}: must be 1 to {MOST_ORCHESTRATORS}")
        if not 1 <= self.shared <= MOST_SHARED:
            raise OptionError(f"--orchestrators {self.shared}: must be 1 to {MOST_SHARED}")

    @property
    def orchestrators(self) -> int:
        """The most orchestrators that run at a time."""
        return self.shared if self.strategy == "shared" else self.most
