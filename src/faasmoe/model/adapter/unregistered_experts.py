"""Experts that transformers does not dispatch through its registry, adapted so that they look as if it did.

`adapt` leaves on them the flags that `use_experts_implementation` leaves on others, so that `model.expert_form`
recognises them by running them, and `run_by` has them run by a function of ours. There are three adapters:

- a module of experts with fused parameters whose forward takes rows, indices and weights, and that only lacks the
  decorator; it may know *zero experts* (LongCat), whose indices follow those of the others, and which return their
  rows;
- Llama 4's block, which scales the rows of experts instead of their results, and gives all rows to all experts;
- JetMoE's block, which has no module of experts (`model.adapter.stacked_experts`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from faasmoe.model.adapter.stacked_experts import separate_experts

Run = Callable[[Any, Tensor, Tensor, Tensor], Tensor]  # experts module, rows, indices and weights to sums of rows

_ROUTED = ["self", "hidden_states", "top_k_index", "top_k_weights"]
_LLAMA4 = "Llama4TextMoe"
_MATRICES = ("gate_up_proj", "down_proj")


def adapt(model: nn.Module) -> None:
    """Leave flags on the experts that have an adapter. They still compute what their class does."""
    separate_experts(model)
    for experts in _unregistered(model):
        _flag(experts, transposed=False)
    for block in _llama4_blocks(model):
        _flag(block.experts, transposed=True)
        block.experts.__dict__["indexed_forward"] = _by_index


def run_by(model: nn.Module, run: Run) -> None:
    """Have the adapted experts of `model` run by `run`."""
    for experts in _unregistered(model, flagged=True):
        experts.__dict__["forward"] = MethodType(partial(_with_zero_experts, run), experts)
    for block in _llama4_blocks(model):
        block.__dict__["forward"] = MethodType(partial(_llama4_forward, run), block)


def _unregistered(model: nn.Module, *, flagged: bool = False) -> Iterator[nn.Module]:
    """Experts whose forward takes rows, indices and weights, without the decorator's flags."""
    for module in list(model.modules()):
        parameters = dict(module.named_parameters(recurse=False))
        own = not hasattr(type(module), "is_concatenated") and not hasattr(type(module).forward, "__wrapped__")
        bare = own and parameters.keys() == set(_MATRICES) and hasattr(module, "is_concatenated") == flagged
        if bare and list(inspect.signature(type(module).forward).parameters) == _ROUTED:
            yield module


def _llama4_blocks(model: nn.Module) -> Iterator[Any]:
    return (module for module in list(model.modules()) if type(module).__name__ == _LLAMA4)


def _flag(experts: nn.Module, *, transposed: bool) -> None:
    experts.__dict__ |= {
        "has_gate": True,
        "has_bias": False,
        "is_concatenated": True,
        "is_transposed": transposed,
        "has_post_expert_norm": False,
    }
    if not hasattr(experts, "_apply_gate"):
        experts.__dict__["_apply_gate"] = partial(_gated, experts)


def _gated(experts: Any, both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    result: Tensor = experts.act_fn(gate) * up
    return result


def _with_zero_experts(run: Run, experts: Any, hidden_states: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """`run` skips indices that are no expert's; those of zero experts give their rows, `[T, H]`."""
    out = run(experts, hidden_states, index, weights)
    if not hasattr(experts, "identity_expert"):
        return out
    zero = (weights * (index >= experts.num_routed_experts)).sum(-1, keepdim=True)
    result: Tensor = (out.float() + hidden_states.float() * zero.float()).to(out.dtype)
    return result


def _llama4_forward(run: Run, block: Any, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
    """As `Llama4TextMoe.forward`: rows are scaled by their scores, and results are not."""
    rows = hidden_states.reshape(-1, block.hidden_dim)
    scores, logits = block.router(rows)
    weights, index = scores.topk(block.top_k, dim=1)  # `[T, K]`: the other scores are zero
    shared = block.shared_expert(rows)
    scaled = (rows[:, None] * weights[..., None]).flatten(0, 1)  # `[T * K, H]`
    routed = run(block.experts, scaled, index.reshape(-1, 1), torch.ones_like(weights).reshape(-1, 1))
    return shared + routed.view(len(rows), block.top_k, -1).sum(1), logits


def _by_index(experts: Any, rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """The class's forward, which gives all rows to all experts, for `index` and `weights` `[T, K]`: `[T, H]`."""
    every = type(experts).forward(experts, rows.repeat(experts.num_experts, 1))
    chosen = every.view(experts.num_experts, *rows.shape)[index, torch.arange(len(rows))[:, None]]
    result: Tensor = (chosen * weights[..., None]).sum(1)
    return result
