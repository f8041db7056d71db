from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.glm4_moe import modeling_glm4_moe as glm
from transformers.models.qwen2_moe import modeling_qwen2_moe as qwen

from faasmoe.model.dense import rotary
from faasmoe.model.dense.rotary import Rotary, take_over, turn_halves
from tests.instruction_sets import on_each

instruction_set = on_each(rotary)

CONFIG = qwen.Qwen2MoeConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1)


def operands(tokens: int, dim: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, ...]:
    torch.manual_seed(tokens)
    query, key = (torch.randn(1, tokens, heads, dim).to(dtype).transpose(1, 2) for heads in (4, 2))
    cos, sin = (torch.randn(1, tokens, dim).to(dtype) for _ in range(2))
    return query, key, cos, sin


@pytest.mark.parametrize("tokens", [1, 3, 40])
@pytest.mark.parametrize("dim", [2, 16, 128])
def test_it_has_the_bits_of_transformers_own(tokens: int, dim: int) -> None:
    query, key, cos, sin = operands(tokens, dim)
    for x, wanted in zip((query, key), qwen.apply_rotary_pos_emb(query, key, cos, sin), strict=True):
        assert torch.equal(turn_halves(x, cos, sin), wanted)
        assert torch.equal(turn_halves(x.contiguous(), cos, sin), wanted)
        apart = torch.stack([x, x], -1)[..., 0]  # heads whose numbers do not lie side by side
        assert torch.equal(turn_halves(apart, cos, sin), wanted)


def test_what_the_kernel_does_not_take_goes_to_transformers_own() -> None:
    calls: list[dict[str, Any]] = []

    def own(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, **named: Any) -> tuple[Tensor, Tensor]:
        calls.append(named)
        return qwen.apply_rotary_pos_emb(query, key, cos, sin, **named)

    rotary = Rotary(own)
    rotary(*operands(3, 16))
    assert not calls
    rotary(*operands(3, 16, torch.float32))
    query, key, cos, sin = operands(3, 16)
    rotary(query.transpose(1, 2), key.transpose(1, 2), cos, sin, unsqueeze_dim=2)
    rotary(query.expand(2, -1, -1, -1), key.expand(2, -1, -1, -1), cos, sin)
    query, key, cos, sin = operands(3, 16)
    rotary(*(tensor[..., :15] for tensor in (query, key, cos, sin)))
    assert calls == [{}, {"unsqueeze_dim": 2}, {}, {}]


def test_a_part_of_a_head_is_turned_by_transformers_own() -> None:
    query, key, cos, sin = operands(3, 16)
    own = glm.apply_rotary_pos_emb
    ours, wanted = Rotary(own)(query, key, cos[..., :8], sin[..., :8]), own(query, key, cos[..., :8], sin[..., :8])
    assert all(torch.equal(*pair) for pair in zip(ours, wanted, strict=True))


def test_an_attention_uses_it_and_its_class_does_not() -> None:
    attention = qwen.Qwen2MoeAttention(CONFIG, 0).bfloat16()
    other = qwen.Qwen2MoeAttention(CONFIG, 0)
    take_over(nn.ModuleList([attention]))
    ours = attention.forward.__func__.__globals__  # type: ignore[attr-defined]
    assert isinstance(ours["apply_rotary_pos_emb"], Rotary)
    assert qwen.apply_rotary_pos_emb is other.forward.__func__.__globals__["apply_rotary_pos_emb"]  # type: ignore[attr-defined]
    assert not isinstance(qwen.apply_rotary_pos_emb, Rotary)


def test_attentions_that_turn_otherwise_are_left_alone() -> None:
    class Interleaved(nn.Module):
        def forward(self, *operands: Tensor) -> tuple[Tensor, Tensor]:
            return apply_rotary_pos_emb(*operands)

    module = Interleaved()
    take_over(module)
    assert "forward" not in module.__dict__


def apply_rotary_pos_emb(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    def turned(x: Tensor) -> Tensor:
        return x * cos[:, None] + torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2) * sin[:, None]

    return turned(query), turned(key)
