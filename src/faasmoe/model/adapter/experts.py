"""Experts modules, as transformers' decorator `use_experts_implementation` leaves them: flags, gate and forward."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


def is_experts(module: nn.Module) -> bool:
    """Whether transformers dispatches `module` through its registry of experts."""
    return hasattr(module, "is_concatenated") and hasattr(module, "_apply_gate")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsFlags:
    """The arguments with which the decorator was applied to a class."""

    has_gate: bool
    has_bias: bool
    is_concatenated: bool  # gate and up follow each other instead of alternating
    is_transposed: bool  # matrices are [in, out]
    has_post_expert_norm: bool

    @classmethod
    def of(cls, experts: nn.Module) -> ExpertsFlags:
        """The flags of a module. Raises `AttributeError` if it is no experts module."""
        module: Any = experts
        return cls(
            has_gate=module.has_gate,
            has_bias=module.has_bias,
            is_concatenated=module.is_concatenated,
            is_transposed=module.is_transposed,
            has_post_expert_norm=module.has_post_expert_norm,
        )


def gated(experts: nn.Module, x: Tensor) -> Tensor:
    """The class's own gate applied to the first layer's output `[n, 2I]`, or its activation to `[n, I]`: `[n, I]`."""
    module: Any = experts
    result: Tensor = module._apply_gate(x) if module.has_gate else module.act_fn(x)
    return result


def own_forward(experts: nn.Module, rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """The class's forward as it is written, instead of the chosen implementation.

    `rows` `[T, H]`, `index` and `weights` `[T, K]` to `[T, H]`.
    """
    forward: Any = type(experts).forward
    # a function that an adapter left (`model.adapter.unregistered_experts`), or what the decorator has wrapped
    by_index = vars(experts).get("indexed_forward") or getattr(forward, "__wrapped__", forward)
    result: Tensor = by_index(experts, rows, index, weights)
    return result


def with_parameters(
    experts: nn.Module, parameters: Mapping[str, Tensor], attributes: Mapping[str, object]
) -> nn.Module:
    """A copy of the module with these parameters instead of all of its own, and these attributes."""
    other = copy.copy(experts)
    other.__dict__ = {**experts.__dict__, **attributes}
    other._parameters = {name: nn.Parameter(value) for name, value in parameters.items()}
    return other
