"""Settings of an engine."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

from faasmoe.errors import OptionError


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine may use, and how much it does at once.

    `max_prompt_tokens` bounds how long a step with decodes can last, as in Sarathi-Serve (Agrawal et al., OSDI
    2024). 64 tokens touch 59 of 60 experts (DESIGN's table for Qwen1.5-MoE), so from there on a step costs one
    reading of the model and then grows with its tokens: 128 keep the reading the lesser part of a prompt's cost
    and add no more to the decodes beside it than a full batch of decodes would.

    Raises `OptionError` naming the option if a value is out of range.
    """

    kv_cache_bytes: int | None = None  # for all sequences; None: a share of free memory
    max_step_tokens: int = 512  # tokens a step
    max_prompt_tokens: int = 128  # of them of prompts, while any sequence decodes
    max_sequences: int = 64  # sequences a step; others take turns with them or wait
    max_waiting: int = 1024  # sequences that may wait; more are refused

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 1 <= value <= sys.maxsize:  # so that NaN is refused
                raise OptionError(f"{field.name} is {value}: must be 1 to {sys.maxsize}")
