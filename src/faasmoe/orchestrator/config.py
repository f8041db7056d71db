"""What an orchestrator is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field

from faasmoe.orchestrator.options import EngineOptions


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """A model and how to serve it. Simple fields only: it travels between processes."""

    name: str  # under which it is served
    folder: str  # of the checkpoint
    block_size: int | None = None  # None: the default
    dtype: str = "auto"
    quantize: str | None = None
    max_model_len: int | None = None  # None: the model's context
    engine: EngineOptions = field(default_factory=EngineOptions)
