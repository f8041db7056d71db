"""JetMoE's experts as a module of their own, since its block has them in two stacks of linear layers.

The block gets a module `experts` with the parameters that experts of other models have, and routes rows to it by
indices and weights. Its attention chooses experts too (a mixture of attention heads): these stay in the dense part.
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK, _ATTENTION = "JetMoeMoE", "JetMoeMoA"
_STACKS = {"input_linear": "gate_up_proj", "output_linear": "down_proj"}


class StackedExperts(nn.Module):
    """The experts of one `JetMoeMoE`."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.gate_up_proj = block.input_linear.weight  # `[E, 2I, H]`
        self.down_proj = block.output_linear.weight  # `[E, H, I]`
        self.act_fn = block.activation

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """As the block computes it. `hidden_states` `[T, H]`, the others `[T, K]`, to `[T, H]`."""
        out = torch.zeros_like(hidden_states)
        for expert, (first, down) in enumerate(zip(self.gate_up_proj, self.down_proj, strict=True)):
            token, place = torch.where(top_k_index == expert)
            gate, up = F.linear(hidden_states[token], first).chunk(2, dim=-1)
            result = F.linear(self.act_fn(gate) * up, down)
            out.index_add_(0, token, result * top_k_weights[token, place, None])
        return out


def separate_experts(model: nn.Module) -> None:
    """Give every block of JetMoE in `model` a module of experts instead of its stacks."""
    for block in list(model.modules()):
        if type(block).__name__ == _ATTENTION:
            block.router.__dict__["forward"] = MethodType(_sorted, block.router)
        if type(block).__name__ != _BLOCK or hasattr(block, "experts"):
            continue
        block.experts = StackedExperts(block)
        for stack in _STACKS:
            delattr(block, stack)
        # the router is given, as a child of the block with linear layers is taken for a shared expert
        block.__dict__["forward"] = MethodType(partial(_forward, block.router), block)


def renamed_tensors(model: nn.Module) -> dict[str, str]:
    """Patterns of a checkpoint's tensors to what they are in `model`, if its experts were separated."""
    if not any(isinstance(module, StackedExperts) for module in model.modules()):
        return {}
    return {rf"mlp\.{stack}\.weight": f"mlp.experts.{parameter}" for stack, parameter in _STACKS.items()}


def _sorted(router: Any, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int], Tensor]:
    """As `JetMoeTopKGating.forward`, which reads how many `rows` `[T, H]` each expert gets.

    In a rehearsal, which has no numbers, all go to the first one.
    """
    if not rows.is_meta:
        result: tuple[Tensor, Tensor, Tensor, list[int], Tensor] = type(router).forward(router, rows)
        return result
    slots = len(rows) * router.top_k
    order = torch.empty(slots, dtype=torch.long, device=rows.device)
    sizes = [slots] + [0] * (router.num_experts - 1)
    return order, order, rows.new_empty(slots), sizes, rows.new_empty(len(rows), router.num_experts)


def _forward(router: Any, block: Any, layer_input: Tensor) -> Tensor:
    """As `JetMoeMoE.forward`: `[B, T, H]` to the same."""
    rows = layer_input.reshape(-1, block.input_size)
    scores, index = router.layer(rows).float().topk(router.top_k, dim=1)
    weights = torch.softmax(scores, dim=1).type_as(rows)
    out = block.experts(rows, index, weights)
    result: Tensor = out.view_as(layer_input) + block.bias
    return result
