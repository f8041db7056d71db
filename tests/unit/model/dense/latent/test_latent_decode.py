from __future__ import annotations

import pytest
import torch

from faasmoe.model.dense.decode_kernel import Rule
from faasmoe.model.dense.latent import latent_decode
from faasmoe.model.dense.latent.latent_decode import Expansion, LatentDecode, supports
from faasmoe.model.state.kv_cache import KVCacheSpec
from tests.instruction_sets import on_each

instruction_set = on_each(latent_decode)
HEADS, ROPE = 11, 24


def attention(query: torch.Tensor, latents: torch.Tensor, expansion: Expansion, rule: Rule) -> torch.Tensor:
    """The textbook with expanded keys and values, for one token: `[heads, dim]`, `[n, rank + rope]`."""
    rank, nope = expansion.rank, expansion.nope
    query, latents, weight = query.double(), latents.double(), expansion.weight.double()
    both = torch.einsum("hor,tr->hto", weight, latents[:, :rank])
    keys = torch.cat([both[..., :nope], latents[:, rank:].expand(len(weight), -1, -1)], -1)
    scores = torch.einsum("hd,htd->ht", query, keys) * rule.scale
    if rule.softcap:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if rule.window:
        scores[:, : -rule.window] = -torch.inf
    if rule.sinks is not None:
        scores = torch.cat([scores, rule.sinks[:, None].double()], 1)
    return torch.einsum("ht,htd->hd", scores.softmax(1)[:, : len(latents)], both[..., nope:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rank", "nope", "value_dim"), [(32, 8, 16), (512, 40, 130)])
@pytest.mark.parametrize(("window", "softcap", "sunk"), [(0, 0, False), (5, 0, True), (140, 2, False)])
def test_it_is_attention_to_expanded_keys_and_values(
    dtype: torch.dtype, rank: int, nope: int, value_dim: int, window: int, softcap: float, sunk: bool
) -> None:
    torch.manual_seed(rank)
    weight = (torch.randn(HEADS, nope + value_dim, rank) * rank**-0.5).to(dtype)
    expansion = Expansion(weight, nope, ROPE)
    rule = Rule((nope + ROPE) ** -0.5, window, softcap, torch.randn(HEADS) if sunk else None)
    pasts = [torch.randn(1, n, rank + ROPE).to(dtype) for n in (1, 2, 67, 300)]
    query = torch.randn(1, HEADS, len(pasts), nope + ROPE).to(dtype)
    key = torch.stack([past[:, -1] for past in pasts], 1)[None]
    assert supports(query, key, expansion)
    caches = []
    for past in pasts:
        caches.append(KVCacheSpec(1, rank + ROPE, 0, dtype, dtype).allocate())
        caches[-1].reserve(past.shape[1])
        caches[-1].append(past[:, :-1], past[:, :-1, :0])
    out = torch.empty(1, len(pasts), HEADS, value_dim, dtype=dtype)
    task = LatentDecode(query, key, out, expansion, rule)
    task.place([cache.place() for cache in caches])
    task.run()
    for i, (cache, past) in enumerate(zip(caches, pasts, strict=True)):
        wanted = attention(query[0, :, i], past[0], expansion, rule)
        rounding = 0 if dtype == torch.float32 else 2**-8
        torch.testing.assert_close(out[0, i].double(), wanted, atol=5e-6, rtol=rounding)
        assert torch.equal(cache.keys[:, : cache.length], past)


def test_shapes_that_do_not_fit_are_refused() -> None:
    expansion = Expansion(torch.zeros(2, 12, 32), 8, ROPE)
    query, key, out = torch.zeros(1, 2, 3, 32), torch.zeros(1, 1, 3, 56), torch.zeros(1, 3, 2, 4)
    for operands in ((query[:, :1], key, out), (query, key[..., :9], out), (query, key, out[:, :2])):
        with pytest.raises(ValueError, match=r"must be \(\(1, 2"):
            LatentDecode(*operands, expansion, Rule(1.0))
    with pytest.raises(ValueError, match="2 places for 3 sequences"):
        LatentDecode(query, key, out, expansion, Rule(1.0)).place([(0, 0, 1, 1)] * 2)


def test_what_is_supported() -> None:
    def of(dtype: torch.dtype, rank: int = 64, rope: int = 8, other: torch.dtype | None = None) -> bool:
        expansion = Expansion(torch.zeros(1, 6, rank, dtype=other or dtype), 4, rope)
        return supports(torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype), expansion)

    assert of(torch.float32)
    assert of(torch.bfloat16, 992, 32)
    assert not of(torch.float16)
    assert not of(torch.float32, other=torch.bfloat16)
    assert not of(torch.float32, 1024)
    assert not of(torch.float32, 40)
