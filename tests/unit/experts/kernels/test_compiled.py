from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from faasmoe.experts.kernels import compiled as module
from faasmoe.experts.kernels.cache import KernelCache
from faasmoe.experts.kernels.compiled import compiled, narrow, widen


@compiled
def _there_and_back(values: Any) -> Any:
    bits, wide = np.empty(len(values), np.uint16), np.empty(len(values), np.float32)
    for i in range(len(values)):
        bits[i] = narrow(values[i])
        wide[i] = widen(bits[i])
    return wide


def test_it_compiles_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KERNELS", KernelCache(None, "no folder"))
    kernel = compiled(lambda value: value + 1)
    assert kernel(2) == 3
    assert not kernel.stats.cache_path


def test_bfloat16_is_rounded_as_torch_does() -> None:
    bits = torch.randint(-(1 << 31), 1 << 31, (100_000,), dtype=torch.int64).to(torch.int32)
    ties = torch.arange(0, 1 << 24, 1 << 8, dtype=torch.int32) << 8 | 0x8000
    edges = torch.tensor([0x7F7FFFFF, 0x7F800000, 0x7F800001, -1, 0x7FFFFFFF, 0, 1], dtype=torch.int32)
    values = torch.cat([bits, ties, edges]).view(torch.float32)
    got = torch.from_numpy(_there_and_back(values.numpy()))
    assert torch.equal(got.nan_to_num(7), values.bfloat16().float().nan_to_num(7))
