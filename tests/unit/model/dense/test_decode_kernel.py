from __future__ import annotations

import pytest
import torch

from faasmoe.engine.kv.cache import KVCache
from faasmoe.model.dense.decode_kernel import Rule, attend, supports

HEADS, DIM, VALUE_DIM = 6, 16, 24


def attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, softcap: float, sinks: torch.Tensor | None
) -> torch.Tensor:
    """The textbook, for one token: `[heads, dim]` and `[heads, n, dim]` to `[heads, value_dim]`."""
    scores = torch.einsum("hd,hnd->hn", query.double(), keys.double()) * 0.3
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None].double()], 1)
    return torch.einsum("hn,hnd->hd", scores.softmax(1)[:, : keys.shape[1]], values.double()).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize(("window", "softcap", "sunk"), [(0, 0, False), (5, 0, False), (0, 2, True), (5, 2, True)])
def test_every_sequence_attends_to_its_own(
    dtype: torch.dtype, kv_heads: int, window: int, softcap: float, sunk: bool
) -> None:
    torch.manual_seed(kv_heads)
    lengths = [1, 2, 5, 6, 67]
    caches, pasts = [KVCache() for _ in lengths], []
    for cache, length in zip(caches, lengths, strict=True):
        past = torch.randn(kv_heads, length, DIM).to(dtype), torch.randn(kv_heads, length, VALUE_DIM).to(dtype)
        if length > 1:
            cache.append(3, *(tensor[:, :-1] for tensor in past))
        pasts.append(past)
    query = torch.randn(len(lengths), HEADS, DIM).to(dtype)
    key, value = (torch.stack([past[i][:, -1] for past in pasts]) for i in range(2))
    sinks = torch.randn(HEADS) if sunk else None
    places = [cache.place(3, key.transpose(0, 1), value.transpose(0, 1)) for cache in caches]
    got = attend(places, query, key, value, Rule(0.3, window, softcap, sinks))
    for i, (cache, past) in enumerate(zip(caches, pasts, strict=True)):
        seen = [tensor[:, -window:].repeat_interleave(HEADS // kv_heads, 0).float() for tensor in past]
        wanted = attention(query[i].float(), *seen, softcap, sinks)
        rounding = 0 if dtype == torch.float32 else 2**-8
        assert got.dtype == dtype
        torch.testing.assert_close(got[i].float(), wanted, atol=2e-6, rtol=rounding)
        stored = cache.append(3, key[:1].transpose(0, 1), value[:1].transpose(0, 1))
        assert all(torch.equal(its[:, :-1], tensor) for its, tensor in zip(stored, past, strict=True))


def test_a_sequences_bits_do_not_depend_on_others() -> None:
    torch.manual_seed(0)
    past = torch.randn(2, 33, DIM)
    rows = torch.randn(3, 2, DIM)

    def run(which: list[int]) -> torch.Tensor:
        places, caches = [], []
        for _ in which:
            caches.append(KVCache())
            caches[-1].append(0, past, past)
            places.append(caches[-1].place(0, past, past))
        return attend(places, rows[which], rows[which], rows[which], Rule(1.0))

    together = run([0, 1, 2])
    for i in range(3):
        assert torch.equal(run([i])[0], together[i])


def test_extreme_scores_stay_numbers() -> None:
    one = torch.full((1, 1, 2), 300.0)
    cache = KVCache()
    cache.append(0, torch.tensor([[[-300.0, -300.0], [300.0, 299.0]]]), torch.tensor([[[1.0], [2.0]]]))
    got = attend([cache.place(0, one, one[..., :1])], one, one, one[..., :1], Rule(1.0))
    assert got.item() == 300


def test_what_is_supported() -> None:
    assert supports(torch.float32)
    assert supports(torch.bfloat16)
    assert not supports(torch.float16)
