from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from faasmoe.experts.formats.int4 import FORMAT, GROUP, Int4Location, Int4Matrix
from faasmoe.experts.formats.int6 import Int6Matrix
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.matvec import linear_rows
from faasmoe.model.tensors import as_array
from tests.instruction_sets import on_each
from tests.products import assert_a_team_has_the_bits_of_one_thread, assert_linear, operands

instruction_set = on_each(matvec, team)
MATRICES = pytest.mark.parametrize("kind", [Int4Matrix, Int6Matrix])


def random(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def nearest(weight: torch.Tensor, matrix: type[Int4Matrix] = Int4Matrix) -> Int4Matrix:
    return matrix.nearest(as_array(weight))


def meant(matrix: Int4Matrix) -> torch.Tensor:
    return torch.from_numpy(matrix.exact()).double()


def eighths(x: torch.Tensor) -> torch.Tensor:
    """What the kernel makes of x: groups of 32 in eight bits, the largest number 127 or -127."""
    groups = x.float().view(len(x), x.shape[1] // GROUP, GROUP)
    most = groups.abs().amax(2, keepdim=True)
    codes = (groups * torch.where(most > 1e-36, torch.tensor(127.0) / most, 0)).round()
    return (codes.double() * (most / 127).double()).view(x.shape)


def test_its_shape_is_the_weights() -> None:
    matrix = Int4Matrix.nearest(random(0, 6, 96))
    assert matrix.shape == matrix.exact().shape == (6, 96)
    assert matrix.nbytes == 6 * 96 // 16 * 9 + 6 * 4  # 4.5 bits a weight, and 32 a row
    part = matrix[2:5]
    assert part.shape == (3, 96)
    assert np.array_equal(part.exact(), matrix.exact()[2:5])
    assert np.array_equal(FORMAT.widened(matrix, slice(2, 5)), part.exact())
    assert format_of(matrix) is FORMAT


def test_files_hold_half_a_byte_for_each_weight() -> None:
    assert FORMAT.converted("a", (6, 96)) == {"a": ("U8", (6, 54)), "a.scale": ("F32", (6,))}
    matrix = Int4Matrix.nearest(random(0, 6, 96))
    arrays = FORMAT.arrays(matrix)
    assert [(array.dtype, array.shape) for array in arrays] == [(np.uint8, (6, 54)), (np.float32, (6,))]
    assert sum(array.nbytes for array in arrays) == matrix.nbytes


def test_a_location_loads_what_was_written(tmp_path: Path) -> None:
    matrix = Int4Matrix.nearest(random(0, 6, 96))
    (tmp_path / "weights").write_bytes(b"".join(array.tobytes() for array in FORMAT.arrays(matrix)))
    blocks = TensorLocation(tmp_path / "weights", 0, "U8", (6, 54))
    place = FORMAT.location([blocks, TensorLocation(tmp_path / "weights", 324, "F32", (6,))])
    assert isinstance(place, Int4Location)
    assert place.shape == (6, 96)
    assert place.memory(2) == place.nbytes == matrix.nbytes
    assert np.array_equal(place.map().exact(), matrix.exact())


def test_bits_of_bfloat16_are_what_they_mean_and_a_transposed_weight_is_its_rows() -> None:
    weight = torch.randn(64, 5).bfloat16()
    wanted = Int4Matrix.nearest(weight.T.float().contiguous().numpy())
    assert np.array_equal(nearest(weight.T).exact(), wanted.exact())


@MATRICES
@given(
    rows=st.one_of(st.integers(0, 9), st.sampled_from([31, 32, 33, 65])),
    outs=st.integers(1, 13),
    groups=st.integers(1, 40),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_sums_are_rounded_once_and_have_the_same_bits_in_any_company(
    kind: type[Int4Matrix], rows: int, outs: int, groups: int, biased: bool, seed: int
) -> None:
    x, weight, bias = operands(rows, outs, GROUP * groups, seed)
    matrix = nearest(weight, kind)
    assert_linear(matrix, meant(matrix), x, bias if biased else None, seen=eighths(x))


@MATRICES
def test_many_rows_go_through_a_large_matrix_chunk_by_chunk(kind: type[Int4Matrix]) -> None:
    x, weight, _ = operands(13, 601, 2048, seed=0)
    matrix = nearest(weight, kind)
    assert torch.equal(linear_rows(x, matrix), torch.cat([linear_rows(row[None], matrix) for row in x]))


def test_rounding_x_to_eight_bits_costs_half_a_percent() -> None:
    """Of the sums' size, for numbers without large ones among them; bfloat16's own rounding is 0.2 % of it."""
    x, weight, _ = operands(8, 64, 2048, seed=0)
    matrix = nearest(weight)
    exact = x.double() @ meant(matrix).T
    assert (linear_rows(x, matrix).double() - exact).norm() < 0.006 * exact.norm()


def test_a_team_gives_the_bits_of_one_thread() -> None:
    x, weight, bias = operands(3, 9000, 64, seed=0)
    assert_a_team_has_the_bits_of_one_thread(nearest(weight), x, bias)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_give_sums_that_are_not(bad: float) -> None:
    x, weight, _ = operands(10, 5, 64, seed=0)
    whole, matrix = linear_rows(x, nearest(weight)), nearest(weight)
    x[3, 40] = bad
    y = linear_rows(x, matrix)
    others = torch.arange(10) != 3
    assert torch.equal(y[others], whole[others])
    assert not y[3].isfinite().any()


def test_extreme_rows_are_no_error() -> None:
    matrix = Int4Matrix.nearest(np.ones((3, 64), np.float32))
    for size in (0.0, 1e-40, 1e-30, 1e30, 3e36):
        x = torch.full((2, 64), size).bfloat16()
        wanted = 64 * x.double() if size > 1e-36 else torch.zeros(2, 64, dtype=torch.float64)
        assert torch.allclose(linear_rows(x, matrix).double(), wanted[:, :3], rtol=1e-2)


def test_what_the_kernel_cannot_read_is_refused() -> None:
    x, matrix = torch.randn(1, 64), Int4Matrix.nearest(random(0, 4, 64))
    assert FORMAT.addresses(matrix) is not None
    wrong = [
        Int4Matrix(matrix.blocks[::2], matrix.scale[::2]),
        Int4Matrix(matrix.blocks[:2], matrix.scale),
        Int4Matrix(matrix.blocks[:, :8].copy(), matrix.scale),
        Int4Matrix(matrix.blocks, np.ones(4)),  # type: ignore[arg-type]
    ]
    assert [FORMAT.addresses(each) for each in wrong] == [None] * 4
    for rows in (x, x.bfloat16()[:, :32], x.bfloat16()[0]):
        with pytest.raises(ValueError, match="no kernel for"):
            linear_rows(rows, matrix)
