from __future__ import annotations

import pytest
import torch

from faasmoe.model.dense import decode_kernel
from faasmoe.model.dense.decode_kernel import Decode, Rule, supports
from faasmoe.model.state.kv_cache import KVCache, KVCacheSpec, Place
from tests.instruction_sets import on_each

instruction_set = on_each(decode_kernel)
HEADS = 12


def attend(
    places: list[Place], query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: Rule
) -> torch.Tensor:
    out = torch.empty(1, query.shape[2], query.shape[1], value.shape[3], dtype=key.dtype)
    decode = Decode(
        len(places),
        *(each if each.stride(3) == 1 else each.contiguous() for each in (query, key, value)),
        out,
        rule,
    )
    decode.place(places)
    decode.run()
    return out


def cache_for(tokens: int, key: torch.Tensor, value: torch.Tensor) -> KVCache:
    """An empty cache for keys and values like these, `[heads, n, dim]`."""
    cache = KVCacheSpec.like(key, value).allocate()
    cache.reserve(tokens)
    return cache


def scale_for(dim: int) -> float:
    """Scores as far apart whatever the size of heads."""
    return float(1.2 * dim**-0.5)


def attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, softcap: float, sinks: torch.Tensor | None
) -> torch.Tensor:
    """The textbook, for one token: `[heads, dim]` and `[heads, n, dim]` to `[heads, value_dim]`."""
    scores = torch.einsum("hd,hnd->hn", query.double(), keys.double()) * scale_for(query.shape[1])
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None].double()], 1)
    return torch.einsum("hn,hnd->hd", scores.softmax(1)[:, : keys.shape[1]], values.double()).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 12])
@pytest.mark.parametrize(("dim", "value_dim"), [(16, 24), (128, 128), (80, 200)])
@pytest.mark.parametrize(
    ("window", "softcap", "sunk"), [(0, 0, False), (5, 0, False), (0, 2, True), (140, 2, True)]
)
def test_every_sequence_attends_to_its_own(
    dtype: torch.dtype, kv_heads: int, dim: int, value_dim: int, window: int, softcap: float, sunk: bool
) -> None:
    torch.manual_seed(kv_heads)
    lengths = [1, 2, 5, 6, 67, 300]
    caches, pasts = [], []
    for length in lengths:
        past = tuple(torch.randn(kv_heads, length, size).to(dtype) for size in (dim, value_dim))
        caches.append(cache_for(length + 1, *past))
        if length > 1:
            caches[-1].append(*(tensor[:, :-1] for tensor in past))
        pasts.append(past)
    query = torch.randn(len(lengths), HEADS, dim).to(dtype)
    key, value = (torch.stack([past[i][:, -1] for past in pasts]) for i in range(2))
    sinks = torch.randn(HEADS) if sunk else None
    places = [cache.place() for cache in caches]
    rows = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    (got,) = attend(places, *rows, Rule(scale_for(dim), window, softcap, sinks))
    for i, (cache, past) in enumerate(zip(caches, pasts, strict=True)):
        seen = [tensor[:, -window:].repeat_interleave(HEADS // kv_heads, 0).float() for tensor in past]
        wanted = attention(query[i].float(), *seen, softcap, sinks)
        rounding = 0 if dtype == torch.float32 else 2**-8
        assert got.dtype == dtype
        torch.testing.assert_close(got[i].float(), wanted, atol=2e-6, rtol=rounding)
        stored = cache.append(key[:1].transpose(0, 1), value[:1].transpose(0, 1))
        assert all(torch.equal(its[:, :-1], tensor) for its, tensor in zip(stored, past, strict=True))


def test_a_sequences_bits_do_not_depend_on_others() -> None:
    torch.manual_seed(0)
    past = torch.randn(2, 33, 128)
    rows = torch.randn(3, 2, 128)

    def run(which: list[int]) -> torch.Tensor:
        places, caches = [], []
        for _ in which:
            caches.append(cache_for(34, past, past))
            caches[-1].append(past, past)
            places.append(caches[-1].place())
        its = rows[which].transpose(0, 1)[None]
        return attend(places, its, its, its, Rule(1.0))[0]

    together = run([0, 1, 2])
    for i in range(3):
        assert torch.equal(run([i])[0], together[i])


def test_extreme_scores_stay_numbers() -> None:
    one = torch.full((1, 1, 1, 2), 300.0)
    cache = cache_for(3, one[0], one[0, ..., :1])
    cache.append(torch.tensor([[[-300.0, -300.0], [300.0, 299.0]]]), torch.tensor([[[1.0], [2.0]]]))
    got = attend([cache.place()], one, one, one[..., :1], Rule(1.0))
    assert got.item() == 300


def test_heads_whose_numbers_lie_apart() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 64)
    apart = torch.stack([x, x], -1)[..., 0]

    def run(rows: torch.Tensor) -> torch.Tensor:
        caches = [cache_for(1, x[0], x[0]) for _ in range(3)]
        return attend([cache.place() for cache in caches], rows, rows, rows, Rule(1.0))

    assert torch.equal(run(apart), run(x))
    assert torch.equal(run(apart), x.transpose(1, 2))  # each sees itself alone


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, place = torch.zeros(1, 2, 3, 8), (0, 0, 1, 1)
    for operands in ((x[:, :, :2], x, x), (x, x[..., :4], x), (x, x, x[:, :, :1]), (x[:, :1], x, x)):
        with pytest.raises(ValueError, match="3 sequences for"):
            attend([place] * 3, *operands, Rule(1.0))
    with pytest.raises(ValueError, match=r"2 sequences for \(1, 2, 3, 8\)"):
        attend([place] * 2, x, x, x, Rule(1.0))


def test_what_is_supported() -> None:
    def of(*kinds: torch.dtype, dim: int = 64, value_dim: int = 64) -> bool:
        sizes = (dim, dim, value_dim)
        return supports(*(torch.empty(1, size, dtype=kind) for size, kind in zip(sizes, kinds, strict=True)))

    narrow, wide, half = torch.bfloat16, torch.float32, torch.float16
    assert of(wide, wide, wide, dim=1024)
    assert of(narrow, narrow, narrow, value_dim=1024)
    assert not of(half, half, half)
    assert not of(wide, narrow, narrow)
    assert not of(narrow, narrow, wide)
    assert not of(narrow, narrow, narrow, dim=1025)
    assert not of(narrow, narrow, narrow, value_dim=1025)
