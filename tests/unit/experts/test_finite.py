from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.experts.finite import all_finite


@given(st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_it_is_what_torch_says(numbers: list[float]) -> None:
    tensor = torch.tensor(numbers)
    assert all_finite(tensor.numpy()) == bool(tensor.isfinite().all())


@pytest.mark.parametrize("place", [0, 4 * 2048 - 1])
def test_one_number_among_many(place: int) -> None:
    array = np.full((4, 2048), 3e38, np.float32)  # whose sum is not finite
    assert all_finite(array)
    array.reshape(-1)[place] = float("nan")
    assert not all_finite(array)


def test_nothing_is_finite() -> None:
    assert all_finite(np.empty((0, 8), np.float32))
