from __future__ import annotations

import pytest
import torch

from faasmoe.model.dense.decode_kernel import Rule
from faasmoe.model.dense.latent import latent_heads
from faasmoe.model.dense.latent.latent_decode import Expansion
from faasmoe.model.dense.latent.latent_heads import LatentHeads
from faasmoe.model.dense.whole import attend

HEADS, RANK, NOPE, ROPE, VALUE = 6, 16, 8, 4, 12


@pytest.mark.parametrize("count", [1, 5, 30])  # absorbed, absorbed, expanded
@pytest.mark.parametrize("at_once", [1, 64 << 20])
@pytest.mark.parametrize(("window", "softcap", "sunk"), [(0, 0, False), (7, 0, False), (0, 2, True)])
@pytest.mark.parametrize("topk", [0, 9])
def test_both_orders_are_attention_to_expanded_keys_and_values(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    at_once: int,
    window: int,
    softcap: float,
    sunk: bool,
    topk: int,
) -> None:
    monkeypatch.setattr(latent_heads, "_AT_ONCE", at_once)
    torch.manual_seed(count)
    length = 40
    weight, latents = torch.randn(HEADS, NOPE + VALUE, RANK) * 0.3, torch.randn(1, length, RANK + ROPE)
    query = torch.randn(HEADS, count, NOPE + ROPE)
    rule = Rule(0.3, 0 if topk else window, softcap, torch.randn(HEADS) if sunk else None)
    selected = None
    if topk:
        seen = torch.rand(count, length).tril(length - count)
        selected = seen.topk(topk).indices.int()
    its = LatentHeads(rule, Expansion(weight, NOPE, ROPE))
    both = torch.einsum("hor,tr->hto", weight, latents[0, :, :RANK])
    keys = torch.cat([both[..., :NOPE], latents[:, :, RANK:].expand(HEADS, -1, -1)], -1)
    wanted = attend(query, keys, both[..., NOPE:], rule, selected)
    got = its.attend(query, latents, latents[..., :0], selected)
    assert got.shape == (HEADS, count, VALUE)
    torch.testing.assert_close(got, wanted, atol=2e-6, rtol=1e-5)
