"""transformers' registries of implementations, by which a model calls ours for its attention, masks and experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def register_attention(name: str, attention: Callable[..., Any], mask: Callable[..., Any] | None = None) -> None:
    """Let models use `attention`, with what `mask` makes instead of a mask, by `set_attn_implementation(name)`.

    Without `mask` they make none, and spend no time on it.
    """
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    if mask is not None:
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, mask)


def register_experts(name: str, experts: Callable[..., Any]) -> None:
    """Let models run their routed experts by `experts`, by `set_experts_implementation(name)`."""
    ALL_EXPERTS_FUNCTIONS.register(name, experts)


def use_eager(config: PretrainedConfig) -> None:
    """Have models of this config built with transformers' own implementations.

    A config may name kernels on the hub instead, which are code that comes with a checkpoint.
    """
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"


def dispatches_attention(model_class: type[PreTrainedModel]) -> bool:
    """Whether the class calls its attention through the registry."""
    return bool(model_class._can_set_attn_implementation())
