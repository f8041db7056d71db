from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.errors import CheckpointError
from faasmoe.experts import fused
from faasmoe.experts.formats.grouped_int4 import FORMAT, GROUPS, GroupedInt4Matrix
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.matvec import linear_rows
from tests.instruction_sets import on_each
from tests.products import assert_a_team_has_the_bits_of_one_thread, assert_linear, operands
from tests.unit.experts.formats import grouped
from tests.unit.experts.formats.whole_numbers import in_whole_numbers

instruction_set = on_each(matvec, team, fused)
each_group = pytest.mark.parametrize("group", GROUPS)


def drawn(outs: int, groups: int, group: int, seed: int) -> GroupedInt4Matrix:
    """All codes and zeros there are, scales of either sign."""
    random = np.random.default_rng(seed)
    return GroupedInt4Matrix(
        grouped.random_bytes(random, outs, groups * group // 2),
        (random.standard_normal((outs, groups)) / 16).astype(np.float32),
        random.integers(0, 17, (outs, groups)).astype(np.uint8),
    )


def meant(matrix: GroupedInt4Matrix) -> torch.Tensor:
    return torch.from_numpy(FORMAT.widened(matrix, slice(None))).double()


@each_group
def test_a_weight_is_scale_times_code_less_zero(group: int) -> None:
    matrix = drawn(5, 3, group, seed=0)
    wanted = np.empty(matrix.shape)
    for out in range(5):
        for column in range(3 * group):
            code = int(matrix.codes[out, column // 2]) >> 4 * (column % 2) & 15
            difference = code - int(matrix.zeros[out, column // group])
            wanted[out, column] = float(matrix.scales[out, column // group]) * difference
    grouped.assert_means(matrix, wanted)
    assert matrix.columns == group
    assert matrix.nbytes == 5 * 3 * (group // 2 + 5)


@each_group
@given(
    rows=st.one_of(st.integers(0, 9), st.sampled_from([31, 33])),
    outs=st.integers(1, 13),
    groups=st.integers(1, 20),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=25)
def test_sums_are_rounded_once_and_have_the_same_bits_in_any_company(
    group: int, rows: int, outs: int, groups: int, biased: bool, seed: int
) -> None:
    matrix = drawn(outs, groups, group, seed)
    x, _, bias = operands(rows, *matrix.shape, seed)
    assert_linear(matrix, meant(matrix), x, bias if biased else None, seen=in_whole_numbers(x))


@each_group
def test_many_rows_go_through_a_large_matrix_chunk_by_chunk(group: int) -> None:
    matrix = drawn(301, 6144 // group, group, seed=0)
    x = torch.randn(13, 6144).bfloat16()
    assert torch.equal(linear_rows(x, matrix), torch.cat([linear_rows(row[None], matrix) for row in x]))
    assert_a_team_has_the_bits_of_one_thread(matrix, x)


@each_group
def test_codes_that_are_their_group_s_zero_give_exactly_nothing(group: int) -> None:
    matrix = drawn(9, 5, group, seed=1)
    matrix.zeros[:] = 9
    matrix.codes[:] = 0x99
    assert (linear_rows(torch.randn(3, 5 * group).bfloat16(), matrix) == 0).all()


@each_group
def test_files_are_read_in_place(group: int, tmp_path: Path) -> None:
    matrix = drawn(6, 4, group, seed=2)
    dtypes = ("U8", "F32", "U8")
    grouped.assert_files_are_read_in_place(tmp_path, matrix, list(zip(dtypes, matrix.arrays, strict=True)))


@each_group
def test_experts_are_those_that_they_stand_for(group: int) -> None:
    hidden, inner = 3 * group, 2 * group
    down = drawn(hidden, inner // group, group, seed=4)
    grouped.assert_experts_are_those_that_they_stand_for(drawn(2 * inner, hidden // group, group, seed=3), down)


@pytest.mark.parametrize(
    ("dtypes", "shapes"),
    [
        (("U8", "F16", "U8"), ((4, 64), (4, 1), (4, 1))),
        (("U8", "F32", "U8"), ((4, 64), (4, 1), (4, 2))),
        (("U8", "F32", "U8"), ((4, 64), (3, 1), (3, 1))),
        (("U8", "F32", "U8"), ((4, 64), (4, 8), (4, 8))),  # groups of 16
        (("U8", "F32", "U8"), ((4, 64), (4, 0), (4, 0))),
        (("U8", "F32", "U8"), ((4, 64), (4, 3), (4, 3))),
        (("U8", "F32", "U8"), ((64,), (1,), (1,))),
        (("U8", "F32"), ((4, 64), (4, 1))),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(
    dtypes: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]
) -> None:
    parts = [TensorLocation(Path("w"), 0, *each) for each in zip(dtypes, shapes, strict=True)]
    with pytest.raises(CheckpointError, match="no weight in grouped_int4"):
        FORMAT.location(parts)


def test_what_the_kernel_cannot_read_is_refused() -> None:
    codes, scales, zeros = drawn(4, 2, 32, seed=0).arrays
    assert FORMAT.addresses(GroupedInt4Matrix(codes, scales, zeros)) is not None
    for wrong in (
        (codes[::2], scales[::2], zeros[::2]),
        (codes, scales.astype(np.float16), zeros),
        (codes, scales[:3], zeros[:3]),
        (codes, scales, zeros[:, :1].copy()),
        (codes, np.repeat(scales, 2, axis=1), np.repeat(zeros, 2, axis=1)),
    ):
        assert FORMAT.addresses(GroupedInt4Matrix(*wrong)) is None
