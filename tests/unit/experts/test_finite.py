from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.experts.finite import all_finite


@given(st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_it_is_what_torch_says(numbers: list[float]) -> None:
    tensor = torch.tensor(numbers)
    assert all_finite(tensor) == bool(tensor.isfinite().all())


@pytest.mark.parametrize("place", [0, 4 * 2048 - 1])
def test_one_number_among_many(place: int) -> None:
    tensor = torch.full((4, 2048), 3e38)  # whose sum is not finite
    assert all_finite(tensor)
    tensor.view(-1)[place] = float("nan")
    assert not all_finite(tensor)


def test_nothing_is_finite() -> None:
    assert all_finite(torch.empty(0, 8))
