from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.orchestrator.kv_cache import KVCache


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_all_that_was_appended_comes_back_in_order(counts: list[int]) -> None:
    cache, total = KVCache(), sum(counts)
    key, value = torch.randn(2, total, 3), torch.randn(2, total, 5)
    at = 0
    for count in counts:
        for layer in (0, 7):
            part = slice(at, at + count)
            keys, values = cache.append(layer, key[:, part] + layer, value[:, part])
            assert torch.equal(keys, key[:, : at + count] + layer)
            assert torch.equal(values, value[:, : at + count])
        at += count
    assert 2 * 4 * total * 16 <= cache.nbytes <= 2 * 4 * 16 * max(64, 2 * total)
