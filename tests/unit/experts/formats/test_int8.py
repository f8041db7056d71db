from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.experts.formats import int8
from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.experts.kernels import expert
from faasmoe.experts.kernels.layers import Layers
from faasmoe.experts.kernels.matvec import linear_rows
from faasmoe.experts.kernels.team import Team
from tests.unit.experts.kernels.test_matvec import assert_rounded_once, operands


@given(outs=st.integers(1, 9), seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1e-6, 1.0, 1e6]))
@settings(deadline=None)
def test_weights_are_off_by_half_a_scale_at_most(outs: int, seed: int, size: float) -> None:
    weight = size * torch.randn(outs, 32, generator=torch.Generator().manual_seed(seed))
    weight[0] = 0
    matrix = Int8Matrix.nearest(weight)
    assert ((matrix.exact() - weight).abs() <= 0.50001 * matrix.scale[:, None]).all()
    assert (matrix.exact()[0] == 0).all()


def test_a_large_matrix_is_what_its_rows_are() -> None:
    weight = torch.randn(3, 1 << 17)
    matrix, rows = Int8Matrix.nearest(weight), [Int8Matrix.nearest(row[None]) for row in weight]
    assert torch.equal(matrix.values, torch.cat([row.values for row in rows]))
    assert torch.equal(matrix.scale, torch.cat([row.scale for row in rows]))


def test_what_is_not_finite_is_refused() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            Int8Matrix.nearest(torch.tensor([[1.0, bad]]))


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
    matrix, its_bias = Int8Matrix.nearest(weight), bias if biased else None
    y = linear_rows(x, matrix, its_bias)
    assert_rounded_once(y, x, matrix.values.double() * matrix.scale.double()[:, None], its_bias)
    for row, wanted in zip(x, y, strict=True):
        assert torch.equal(linear_rows(row[None], matrix, its_bias)[0], wanted)


def test_sums_larger_than_the_allocators_own_pages_stay_alive() -> None:
    x, weight, _ = operands(128, 5632, 64, seed=0)
    for matrix in (weight, Int8Matrix.nearest(weight)):
        exact = matrix.exact() if isinstance(matrix, Int8Matrix) else matrix
        assert_rounded_once(linear_rows(x, matrix), x, exact)


def test_a_team_gives_the_bits_of_one_thread() -> None:
    x, weight, bias = operands(3, 9000, 64, seed=0)
    matrix = Int8Matrix.nearest(weight)
    assert torch.equal(Team(2).run(Layers((matrix, bias)), x)[0], linear_rows(x, matrix, bias))


@pytest.mark.parametrize("rows", [31, 32, 70])
def test_where_the_cpu_multiplies_matrices_many_rows_go_to_torch(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(expert, "_multiplies_matrices", lambda: True)
    monkeypatch.setattr(int8, "_WIDEN_PIECE", 64 * 7)  # the last piece is smaller
    x, weight, bias = operands(rows, 48, 64, seed=0)
    matrix = Int8Matrix.nearest(weight)
    assert expert.own_kernel(rows) == (rows < 32)
    exact = x.double() @ matrix.exact().double().T
    for its_bias in (bias, None):
        wanted = exact if its_bias is None else exact + its_bias.double()
        got = expert.linear(x, matrix, its_bias, transposed=False)
        assert got.dtype == torch.bfloat16
        assert ((got.double() - wanted).abs() <= 2**-7 * (exact.abs() + wanted.abs()) + 1e-3).all()
    with pytest.raises(ValueError, match="are not transposed"):
        expert.linear(x, matrix, None, transposed=True)


def test_rows_in_float32_are_refused() -> None:
    matrix = Int8Matrix.nearest(torch.randn(4, 16))
    with pytest.raises(ValueError, match="no kernel for"):
        linear_rows(torch.randn(1, 16), matrix)
