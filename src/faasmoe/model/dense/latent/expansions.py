"""Recognises attentions that make keys and values of latents (DeepSeek-V2's MLA), and has them keep the latents.

Such an attention of transformers has a method `expand_kv` from latents and the keys' part with a position to keys and
values. Its weights are found by running `kv_b_proj`, and believed if they make what the method makes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from faasmoe.model.dense.latent.latent_decode import Expansion

_NAME = "expansion"  # of an attention that keeps latents


def take_over(model: nn.Module) -> None:
    """Have every attention of `model` that is recognised keep latents."""
    for module in model.modules():
        if hasattr(module, "expand_kv") and (found := _recognised(module)) is not None:
            module.__dict__[_NAME] = found
            module.__dict__["expand_kv"] = _together


def expansion_of(module: nn.Module) -> Expansion | None:
    """Of an attention that keeps latents."""
    found: Expansion | None = module.__dict__.get(_NAME)
    return found


def _together(latents: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
    """`[1, 1, T, rank]` and `[1, 1, T, rope]` to what is kept, `[1, 1, T, rank + rope]`, and values of no width."""
    return torch.cat([latents, rope], -1), latents[..., :0]


@torch.inference_mode()
def _recognised(module: Any) -> Expansion | None:
    """None if keys and values are made in another way, which is then left to the module."""
    try:
        rank, nope, rope = int(module.kv_lora_rank), int(module.qk_nope_head_dim), int(module.qk_rope_head_dim)
        weight = _weight(module.kv_b_proj, rank, _computed_in(module)).view(int(module.num_heads), -1, rank)
        generator = torch.Generator("cpu").manual_seed(0)
        latents, turned = (
            torch.randn(1, 1, 3, width, generator=generator, device="cpu").to(weight) for width in (rank, rope)
        )
        keys, values = module.expand_kv(latents, turned)
    except (AttributeError, TypeError, RuntimeError, ValueError):
        return None
    both = torch.einsum("tr,hor->hto", latents[0, 0].float(), weight.float())
    wanted = torch.cat([both[..., :nope], turned[0].float().expand(len(weight), -1, -1), both[..., nope:]], -1)
    if keys.shape[-1] != nope + rope or keys.shape[-1] + values.shape[-1] != wanted.shape[-1]:
        return None
    tolerance = 1e-4 if weight.dtype == torch.float32 else 2e-2
    if weight.is_meta:  # a rehearsal, which has no numbers
        return Expansion(weight, nope, rope)
    if not torch.allclose(torch.cat([keys, values], -1)[0].float(), wanted, tolerance, tolerance):
        return None
    return Expansion(weight, nope, rope)


def _computed_in(module: nn.Module) -> torch.dtype:
    """The dtype of latents: that of the weights which are no layer's codes, such as those of norms."""
    plain = (each.dtype for each in module.parameters() if each.is_floating_point() and each.itemsize > 1)
    return next(plain, torch.float32)


def _weight(layer: Any, rank: int, dtype: torch.dtype) -> Tensor:
    """`[out, rank]`: the layer's own if it is plain, else what it makes of the identity, in memory of its own."""
    own = layer.weight
    if layer.bias is not None:
        raise ValueError("keys and values are no linear function of latents")
    if isinstance(own, Tensor) and own.is_floating_point() and own.itemsize > 1:
        return own.contiguous()
    made: Tensor = layer(torch.eye(rank, dtype=dtype))
    return made.T.contiguous()
