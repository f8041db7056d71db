from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from faasmoe.errors import CheckpointError
from faasmoe.experts import fused
from faasmoe.experts.formats.mxfp4 import FORMAT, Mxfp4Matrix
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.matvec import linear_rows
from tests.instruction_sets import on_each
from tests.products import assert_a_team_has_the_bits_of_one_thread
from tests.unit.experts.formats import grouped

instruction_set = on_each(matvec, team, fused)

NUMBERS = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def arrays(outs: int, groups: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    return grouped.random_bytes(random, outs, groups, 16), random.integers(110, 130, (outs, groups)).astype(
        np.uint8
    )


def defined(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float64]:
    """By the format's definition, weight by weight."""
    weight = np.zeros((len(blocks), 32 * scales.shape[1]))
    for out, column in np.ndindex(*weight.shape):
        byte = int(blocks[out, column // 32, column % 32 // 2])
        number = NUMBERS[byte >> 4 if column % 2 else byte & 15]
        weight[out, column] = number * 2.0 ** (int(scales[out, column // 32]) - 127)
    return weight


def test_a_weight_is_its_code_times_a_power_of_two() -> None:
    blocks, scales = arrays(7, 3)
    grouped.assert_means(Mxfp4Matrix.of(blocks, scales), defined(blocks, scales))


def test_weights_are_those_of_transformers() -> None:
    blocks, scales = (torch.from_numpy(array)[None] for array in arrays(96, 5))
    wanted = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)[0].T  # theirs are [experts, in, out]
    matrix = Mxfp4Matrix.of(blocks[0].numpy(), scales[0].numpy())
    assert torch.equal(torch.from_numpy(matrix.exact()), wanted)


@given(
    rows=st.integers(0, 9),
    outs=st.integers(1, 13),
    groups=st.one_of(st.integers(1, 9), st.just(90)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=40)
def test_sums_are_rounded_once_and_have_the_same_bits_in_any_company(
    rows: int, outs: int, groups: int, seed: int
) -> None:
    matrix = Mxfp4Matrix.of(*arrays(outs, groups, seed))
    grouped.assert_is_a_linear_layer(matrix, matrix.exact(), rows, seed)


def test_every_code_and_every_scale_is_read() -> None:
    """Each code times 1 alone, under each scale with which all products are normal numbers."""
    x = torch.eye(32, dtype=torch.bfloat16)
    codes = np.arange(16, dtype=np.uint8)
    row = np.concatenate([codes, codes[::-1]])
    blocks = np.broadcast_to((row[::2] | row[1::2] << 4)[None, None], (251, 1, 16)).copy()
    matrix = Mxfp4Matrix.of(blocks, np.arange(2, 253, dtype=np.uint8)[:, None])
    wanted = torch.from_numpy(matrix.exact().T.astype(np.float32)).bfloat16()
    assert torch.equal(linear_rows(x, matrix), wanted)


def test_the_scale_that_is_no_number_gives_sums_that_are_not_finite() -> None:
    blocks, scales = arrays(5, 4)
    whole, x = Mxfp4Matrix.of(blocks, scales), torch.randn(3, 128).bfloat16()
    bad = scales.copy()
    bad[2, 1] = 255
    matrix = Mxfp4Matrix.of(blocks, bad)
    assert np.isnan(matrix.exact()[2, 32:64]).all()
    y, others = linear_rows(x, matrix), torch.arange(5) != 2
    assert not y[:, 2].isfinite().any()
    assert torch.equal(y[:, others], linear_rows(x, whole)[:, others])


def test_a_team_gives_the_bits_of_one_thread() -> None:
    matrix = Mxfp4Matrix.of(*arrays(9000, 2))
    assert_a_team_has_the_bits_of_one_thread(matrix, torch.randn(3, matrix.shape[1]).bfloat16())


def test_files_are_read_in_place(tmp_path: Path) -> None:
    blocks, scales = arrays(6, 3)
    grouped.assert_files_are_read_in_place(
        tmp_path, Mxfp4Matrix.of(blocks, scales), [("U8", blocks), ("U8", scales)]
    )


def test_experts_are_those_that_they_stand_for() -> None:
    first, down = (Mxfp4Matrix.of(*arrays(outs, groups)) for outs, groups in ((192, 5), (160, 3)))
    grouped.assert_experts_are_those_that_they_stand_for(first, down)


def test_what_is_no_weight_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    def places(*shapes: tuple[int, ...], dtype: str = "U8") -> list[TensorLocation]:
        return [TensorLocation(tmp_path, 0, dtype, shape) for shape in shapes]

    for wrong in (
        places((6, 3, 16), (6, 4)),
        places((6, 3, 8), (6, 3)),
        places((6, 48), (6, 3)),
        places((6, 3, 16)),
        places((6, 3, 16), (6, 3), dtype="I8"),
    ):
        with pytest.raises(CheckpointError, match="no weight in mxfp4"):
            FORMAT.location(wrong)
    matrix = Mxfp4Matrix.of(*arrays(6, 3))
    strided = Mxfp4Matrix(matrix.codes[::2], matrix.scales[::2])
    assert FORMAT.addresses(strided) is None
    assert FORMAT.addresses(Mxfp4Matrix(matrix.codes, matrix.scales[:, :2].copy())) is None
