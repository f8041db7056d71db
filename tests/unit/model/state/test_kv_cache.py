from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.model.state import kv_cache
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import SequenceState, StateSpec

A_TOKEN = 4 * 2 * (3 + 5)  # bytes in one layer: float32, 2 heads, keys of 3 and values of 5


LAYER = KVCacheSpec(2, 3, 5, torch.float32, torch.float32)


def reserved(tokens: int, layers: tuple[int, ...] = (0, 7)) -> SequenceState:
    state = StateSpec(dict.fromkeys(layers, LAYER)).allocate()
    state.reserve(tokens)
    return state


def filled(tokens: int, layers: tuple[int, ...] = (0, 7)) -> tuple[SequenceState, torch.Tensor, torch.Tensor]:
    state, key, value = reserved(tokens, layers), torch.randn(2, tokens, 3), torch.randn(2, tokens, 5)
    for layer in layers:
        state.layers[layer].append(key + layer, value)
    return state, key, value


def test_a_token_takes_its_keys_and_values() -> None:
    assert (LAYER.nbytes(0), LAYER.nbytes(1), LAYER.nbytes(7)) == (0, A_TOKEN, 7 * A_TOKEN)
    mixed = KVCacheSpec(2, 3, 5, torch.float32, torch.bfloat16)
    assert mixed.nbytes(1) == 2 * (3 * 4 + 5 * 2)
    cache = mixed.allocate()
    cache.reserve(4)
    cache.append(torch.randn(2, 1, 3), torch.randn(2, 1, 5).bfloat16())
    assert cache.nbytes == mixed.nbytes(4)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_all_that_was_appended_comes_back_in_order(counts: list[int]) -> None:
    total = sum(counts)
    cache = reserved(total)
    key, value = torch.randn(2, total, 3), torch.randn(2, total, 5)
    at = 0
    for count in counts:
        for layer in (0, 7):
            part = slice(at, at + count)
            keys, values = cache.layers[layer].append(key[:, part] + layer, value[:, part])
            assert torch.equal(keys, key[:, : at + count] + layer)
            assert torch.equal(values, value[:, : at + count])
        at += count
    assert cache.nbytes == 2 * A_TOKEN * total


def test_places_stay_where_room_was_made() -> None:
    cache = LAYER.allocate()
    cache.reserve(4)
    cache.append(torch.randn(2, 3, 3), torch.randn(2, 3, 5))
    cache.reserve(9)
    cache.make_room(6)
    places = [cache.place() for _ in range(6)]
    assert places == [(cache.keys.data_ptr(), cache.values.data_ptr(), 9, length) for length in range(4, 10)]
    with pytest.raises(ValueError, match="10 tokens; 9 are reserved"):
        cache.make_room(1)


def test_what_is_reserved_is_what_it_takes() -> None:
    cache = reserved(10, (0, 1, 2))
    key, value = torch.randn(2, 30, 3), torch.randn(2, 30, 5)
    for start, capacity in (0, 10), (10, 20), (20, 30):
        cache.reserve(capacity)
        for layer in (0, 1, 2):
            keys, values = cache.layers[layer].append(key[:, start : start + 10], value[:, start : start + 10])
            assert torch.equal(keys, key[:, : start + 10])
            assert torch.equal(values, value[:, : start + 10])
        assert cache.nbytes == 3 * A_TOKEN * capacity


def test_a_layer_that_cannot_grow_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, key, value = filled(9, layers=(0,))
    cache.reserve(200)
    resized = kv_cache._resized

    def fails_for_values(buffer: torch.Tensor, used: int, capacity: int) -> torch.Tensor:
        if buffer.shape[2] == 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return resized(buffer, used, capacity)

    with monkeypatch.context() as patched:
        patched.setattr(kv_cache, "_resized", fails_for_values)
        with pytest.raises(RuntimeError):
            cache.layers[0].append(torch.randn(2, 80, 3), torch.randn(2, 80, 5))
    keys, values = cache.layers[0].append(key, value)
    assert torch.equal(keys, torch.cat([key, key], 1))
    assert torch.equal(values, torch.cat([value, value], 1))


def test_it_never_takes_more_than_was_reserved() -> None:
    cache = reserved(4)
    with pytest.raises(ValueError, match="5 tokens; 4 are reserved"):
        cache.layers[0].append(torch.randn(2, 5, 3), torch.randn(2, 5, 5))


def test_a_truncated_cache_goes_on_from_there() -> None:
    cache, key, value = filled(9)
    cache.truncate(4)
    for layer in (0, 7):
        keys, values = cache.layers[layer].append(key[:, :2], value[:, :2])
        assert torch.equal(keys, torch.cat([key[:, :4] + layer, key[:, :2]], 1))
        assert torch.equal(values, torch.cat([value[:, :4], value[:, :2]], 1))


def test_a_copy_shares_nothing() -> None:
    cache, key, _ = filled(9)
    copy = reserved(12)
    copy.copy_from(cache, 4)
    cache.truncate(0)
    cache.layers[7].append(torch.zeros(2, 9, 3), torch.zeros(2, 9, 5))
    keys, _ = copy.layers[7].append(key[:, 4:9] + 7, torch.zeros(2, 5, 5))
    assert torch.equal(keys, key + 7)
    assert copy.nbytes == 2 * A_TOKEN * 12
