from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from faasmoe.model.dense.overlap import LazyTensor, Overlapped, overlap


class Shared(nn.Module):
    """A shared expert that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.proj(x)


class Block(nn.Module):
    """An MoE block that calls its shared expert before or after the routed ones, as transformers' classes do."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 2)
        self.experts = nn.Identity()
        self.shared_expert = Shared()
        self.order = order
        self.routed: Callable[[Tensor], Tensor] = torch.zeros_like

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(-1, 4)
        if self.order == "before":
            shared = self.shared_expert(rows)
            return (self.routed(rows) + torch.sigmoid(self.gate(rows))[:, :1] * shared).view(x.shape)
        if self.order == "after":
            return self.routed(rows).view(x.shape) + self.shared_expert(x)
        return self.routed(rows).view(x.shape) + self.shared_expert(x * 2)


@pytest.mark.parametrize("order", ["before", "after", "something else"])
def test_a_shared_expert_runs_while_the_routed_ones_do(order: str) -> None:
    torch.manual_seed(1)
    block, x = Block(order).requires_grad_(False), torch.randn(1, 3, 4)
    wanted, inner = block(x), block.shared_expert
    (stand_in,) = overlap(block, block.experts)
    assert block.shared_expert is stand_in

    def probe(rows: Tensor) -> Tensor:
        stand_in.learn(rows)
        return torch.zeros_like(rows)

    block.routed = probe
    assert torch.equal(block(x), wanted)
    during: list[int] = []

    def routed(rows: Tensor) -> Tensor:
        before = inner.calls
        stand_in.run(rows)
        during.append(inner.calls - before)
        return torch.zeros_like(rows)

    block.routed = routed
    inner.calls = 0
    for _ in range(2):
        assert torch.equal(block(x), wanted)
    assert inner.calls == 2  # never twice for one pass
    assert during == ([0, 0] if order == "something else" else [1, 1])


def test_only_modules_with_layers_inside_are_shared_experts() -> None:
    block = Block("before")
    assert [type(stand_in) for stand_in in overlap(block, block.experts)] == [Overlapped]
    assert isinstance(block.gate, nn.Linear)


def test_a_promise_is_kept_by_whatever_touches_it() -> None:
    tensor = torch.arange(4.0)
    for touch in (
        lambda t: t + 1, lambda t: 1 + t, lambda t: torch.ones(4) + t, lambda t: t * 2, lambda t: torch.ones(4) * t,
        lambda t: t.view(2, 2), lambda t: torch.stack([t]), lambda t: torch.add(input=tensor, other=t), lambda t: t[1:],
        lambda t: t - 1, lambda t: 1 - t, lambda t: t / 2, lambda t: -t, lambda t: t @ tensor,
    ):  # fmt: skip
        compute = Mock(return_value=tensor)
        later = LazyTensor(compute)
        compute.assert_not_called()
        assert torch.equal(touch(later), touch(tensor))
        compute.assert_called_once()
