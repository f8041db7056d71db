from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.matvec import linear_rows
from faasmoe.model.tensors import as_array
from tests.instruction_sets import on_each
from tests.products import (
    assert_a_team_has_the_bits_of_one_thread,
    assert_linear,
    assert_rounded_once,
    operands,
)

instruction_set = on_each(matvec, team)


def nearest(weight: torch.Tensor) -> Int8Matrix:
    return Int8Matrix.nearest(as_array(weight))


def exact(matrix: Int8Matrix) -> torch.Tensor:
    """What it means, in float64."""
    return torch.from_numpy(matrix.values).double() * torch.from_numpy(matrix.scale).double()[:, None]


@given(outs=st.integers(1, 9), seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1e-6, 1.0, 1e6]))
@settings(deadline=None)
def test_weights_are_off_by_half_a_scale_at_most(outs: int, seed: int, size: float) -> None:
    weight = size * torch.randn(outs, 32, generator=torch.Generator().manual_seed(seed)).numpy()
    weight[0] = 0
    matrix = Int8Matrix.nearest(weight)
    assert (np.abs(matrix.exact() - weight) <= 0.50001 * matrix.scale[:, None]).all()
    assert (matrix.exact()[0] == 0).all()


def test_a_large_matrix_is_what_its_rows_are() -> None:
    weight = torch.randn(3, 1 << 17).numpy()
    matrix, rows = Int8Matrix.nearest(weight), [Int8Matrix.nearest(row[None]) for row in weight]
    assert np.array_equal(matrix.values, np.concatenate([row.values for row in rows]))
    assert np.array_equal(matrix.scale, np.concatenate([row.scale for row in rows]))


def test_bits_of_bfloat16_are_what_they_mean() -> None:
    weight = torch.randn(3, 32).bfloat16()
    matrix, same = Int8Matrix.nearest(as_array(weight)), Int8Matrix.nearest(weight.float().numpy())
    assert np.array_equal(matrix.values, same.values)
    assert np.array_equal(matrix.scale, same.scale)


@pytest.mark.parametrize("largest", [1e-45, 1e-43, 127 * 1.4e-45])
def test_rows_of_the_smallest_numbers_stay_in_range(largest: float) -> None:
    weight = np.full((1, 16), largest, np.float32)
    matrix = Int8Matrix.nearest(-weight)
    assert (np.abs(matrix.values.astype(np.int16)) <= 127).all()
    assert (np.abs(matrix.exact() + weight) <= weight).all()


def test_what_is_not_finite_is_refused() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            Int8Matrix.nearest(np.array([[1.0, bad]], np.float32))


X_OFF = 0.5 / 0x7F7F  # kernels multiply by whole numbers, up to 0x7f7f for the largest of a row of x


@given(
    rows=st.one_of(st.integers(0, 9), st.sampled_from([31, 32, 33, 65])),
    outs=st.integers(1, 13),
    ins=st.integers(1, 9).map(lambda steps: 16 * steps),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_sums_are_rounded_once_and_have_the_same_bits_in_any_company(
    rows: int, outs: int, ins: int, biased: bool, seed: int
) -> None:
    x, weight, bias = operands(rows, outs, ins, seed)
    matrix = nearest(weight)
    assert_linear(matrix, exact(matrix), x, bias if biased else None, x_off=X_OFF)


def test_sums_larger_than_the_allocators_own_pages_stay_alive() -> None:
    x, weight, _ = operands(128, 5632, 64, seed=0)
    for matrix in (weight, nearest(weight)):
        means, off = (exact(matrix), X_OFF) if isinstance(matrix, Int8Matrix) else (matrix, 0)
        assert_rounded_once(linear_rows(x, matrix), x, means, x_off=off)


def test_a_team_gives_the_bits_of_one_thread() -> None:
    x, weight, bias = operands(3, 9000, 64, seed=0)
    assert_a_team_has_the_bits_of_one_thread(nearest(weight), x, bias)


def test_rows_in_float32_are_refused() -> None:
    matrix = nearest(torch.randn(4, 16))
    with pytest.raises(ValueError, match="no kernel for"):
        linear_rows(torch.randn(1, 16), matrix)


def test_numbers_that_are_not_finite_stay_in_their_row() -> None:
    x, weight, _ = operands(4, 5, 4000, seed=0)
    matrix = nearest(weight)
    whole = linear_rows(x, matrix)
    x[0, 3], x[2, 3999], x[3] = float("nan"), -float("inf"), 1e-38
    y = linear_rows(x, matrix)
    assert y[0].isnan().all()
    assert torch.equal(y[1], whole[1])
    assert y[2].isnan().all()
    assert (y[3].abs() <= 1e-30).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_stay_exact(sign: int) -> None:
    """Whole numbers of 31 bits in every lane, over several blocks of columns."""
    x = torch.ones(1, 5008).bfloat16()
    matrix = Int8Matrix(np.full((3, 5008), 127 * sign, np.int8), np.ones(3, np.float32))
    assert_rounded_once(linear_rows(x, matrix), x, exact(matrix))
