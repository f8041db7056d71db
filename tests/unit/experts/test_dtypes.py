from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.experts import dtypes
from faasmoe.experts.dtypes import BY_NAME, converted, fits, narrowed, widened
from faasmoe.model.tensors import DTYPES, as_array, as_tensor


def test_every_name_is_one_of_torchs() -> None:
    assert BY_NAME.keys() == DTYPES.keys()
    assert all(BY_NAME[name].itemsize == dtype.itemsize for name, dtype in DTYPES.items())


@given(bits=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=20))
def test_bfloat16_is_widened_as_torch_does(bits: list[int]) -> None:
    array = np.array(bits, np.uint16)
    wide = widened(array)
    assert wide.dtype == np.float32
    assert torch.equal(as_tensor(wide).view(torch.int32), as_tensor(array).float().view(torch.int32))


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_float32_is_narrowed_as_torch_does(bits: list[int]) -> None:
    wide = np.array(bits, np.uint32).view(np.float32)
    got, wanted = as_tensor(narrowed(wide)), as_tensor(wide).bfloat16()
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got.nan_to_num(1), wanted.nan_to_num(1))


def test_what_is_float32_is_not_copied() -> None:
    array = np.ones(3, np.float32)
    assert widened(array) is array


@pytest.mark.parametrize("source", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("name", ["F32", "BF16"])
def test_conversions_are_torchs(monkeypatch: pytest.MonkeyPatch, source: str, name: str) -> None:
    monkeypatch.setattr(dtypes, "_PIECE", 7)  # the last piece is smaller
    tensor = torch.randn(5, 6, dtype=torch.float64).to(DTYPES[source])
    assert torch.equal(as_tensor(converted(as_array(tensor), name)), tensor.to(DTYPES[name]))
    assert fits(source, name) == torch.equal(tensor.to(DTYPES[name]).to(tensor.dtype), tensor)
