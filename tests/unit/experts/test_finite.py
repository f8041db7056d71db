from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.experts import finite
from faasmoe.experts.finite import all_finite
from tests.instruction_sets import on_each

instruction_set = on_each(finite)


@given(st.lists(st.floats(width=32), min_size=1, max_size=70))
def test_it_is_what_numpy_says(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    assert all_finite(array) == bool(np.isfinite(array).all())


@pytest.mark.parametrize("place", [0, 5000, 4 * 2048 - 1])
@pytest.mark.parametrize("number", [np.nan, -np.nan, np.inf, -np.inf])
def test_one_number_among_many(place: int, number: float) -> None:
    array = np.full((4, 2048), 3e38, np.float32)  # whose sum is not finite
    assert all_finite(array)
    array.reshape(-1)[place] = number
    assert not all_finite(array)


def test_nothing_is_finite() -> None:
    assert all_finite(np.empty((0, 8), np.float32))


def test_an_array_with_gaps_is_refused() -> None:
    with pytest.raises(TypeError, match="not C contiguous"):
        all_finite(np.ones((4, 8), np.float32)[:, ::2])
