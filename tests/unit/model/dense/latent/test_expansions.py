from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faasmoe.model.dense.latent.expansions import expansion_of, take_over
from tests.tiny import tiny_config, tiny_model


@pytest.mark.parametrize("model_type", ["deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "axk1"])
def test_attentions_of_transformers_are_recognised(model_type: str) -> None:
    model = tiny_model(tiny_config(model_type))
    take_over(model)
    attentions = [module for module in model.modules() if hasattr(module, "kv_b_proj")]
    assert len(attentions) == 3
    for attention in attentions:
        expansion = expansion_of(attention)
        assert expansion is not None
        assert expansion.weight.data_ptr() == attention.kv_b_proj.weight.data_ptr()  # it takes no memory
        kept, none = attention.expand_kv(torch.ones(1, 1, 2, expansion.rank), torch.zeros(1, 1, 2, expansion.rope))
        assert kept.shape == (1, 1, 2, expansion.rank + expansion.rope)
        assert none.shape == (1, 1, 2, 0)


class Attention(nn.Module):
    """What an attention of transformers has, with an expansion of its own."""

    kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, num_heads = 32, 4, 4, 2

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.kv_b_proj = nn.Linear(32, 2 * 10, bias=bias)

    def expand_kv(self, latents: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        both = self.kv_b_proj(latents).view(1, latents.shape[2], 2, 10).transpose(1, 2)
        return torch.cat([both[..., :4], self.turned(rope).expand(-1, 2, -1, -1)], -1), both[..., 4:]

    def turned(self, rope: Tensor) -> Tensor:
        return rope


class Doubled(Attention):
    def turned(self, rope: Tensor) -> Tensor:
        return 2 * rope


def test_what_is_no_linear_function_of_latents_is_left_alone() -> None:
    plain, biased, other = Attention(bias=False), Attention(bias=True), Doubled(bias=False)
    take_over(nn.ModuleList([plain, biased, other]))
    assert expansion_of(plain) is not None
    assert expansion_of(biased) is None
    assert expansion_of(other) is None
    assert other.expand_kv(torch.ones(1, 1, 1, 32), torch.ones(1, 1, 1, 4))[0].shape == (1, 2, 1, 8)
