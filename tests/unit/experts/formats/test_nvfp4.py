from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from faasmoe.errors import CheckpointError
from faasmoe.experts import fused
from faasmoe.experts.formats.nvfp4 import FORMAT, Nvfp4Matrix
from faasmoe.experts.formats.nvfp4_pack import Nvfp4PackMatrix
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.matvec import linear_rows
from tests.instruction_sets import on_each
from tests.products import assert_a_team_has_the_bits_of_one_thread
from tests.unit.experts.formats import grouped

instruction_set = on_each(matvec, team, fused)

NUMBERS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]


def arrays(outs: int, groups: int, seed: int = 0) -> Arrays:
    """Scales are any numbers of e4m3, negative ones too."""
    random = np.random.default_rng(seed)
    scales = grouped.random_bytes(random, outs, groups)
    scales[scales & 0x7F == 0x7F] = 1
    overall = np.array(random.uniform(1e-3, 2), np.float32)
    return grouped.random_bytes(random, outs, 8 * groups), scales, overall


def scaled(codes: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Codes times their groups' scales, as torch reads e4m3."""
    numbers = NUMBERS[np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)]
    factors = torch.from_numpy(scales).view(torch.float8_e4m3fn).double().numpy()
    return numbers * np.repeat(factors, 16, axis=1)


def test_a_weight_is_its_code_times_two_scales() -> None:
    codes, scales, overall = arrays(7, 5)
    grouped.assert_means(Nvfp4Matrix.of(codes, scales, overall), scaled(codes, scales) * float(overall))
    grouped.assert_means(Nvfp4PackMatrix.of(codes, scales, overall), scaled(codes, scales) / float(overall))


@given(
    rows=st.integers(0, 9),
    outs=st.integers(1, 13),
    groups=st.one_of(st.integers(1, 17), st.just(180)),
    pack=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=40)
def test_sums_are_rounded_once_and_have_the_same_bits_in_any_company(
    rows: int, outs: int, groups: int, pack: bool, seed: int
) -> None:
    matrix = (Nvfp4PackMatrix if pack else Nvfp4Matrix).of(*arrays(outs, groups, seed))
    grouped.assert_is_a_linear_layer(matrix, matrix.exact(), rows, seed)


def test_every_code_and_every_scale_is_read() -> None:
    codes, scales = np.arange(16, dtype=np.uint8), np.arange(256, dtype=np.uint8)
    row = np.broadcast_to(codes[::2] | codes[1::2] << 4, (256, 8)).copy()
    y = linear_rows(torch.eye(16, dtype=torch.bfloat16), Nvfp4Matrix.of(row, scales[:, None], np.float32(1)[None]))
    wanted = torch.from_numpy(scaled(row, scales[:, None]).T).bfloat16()
    number = (scales & 0x7F) != 0x7F
    assert torch.equal(y[:, number], wanted[:, number])
    assert y[:, ~number].isnan().all()


def test_a_team_gives_the_bits_of_one_thread() -> None:
    matrix = Nvfp4Matrix.of(*arrays(9000, 4))
    assert_a_team_has_the_bits_of_one_thread(matrix, torch.randn(3, matrix.shape[1]).bfloat16())


@pytest.mark.parametrize("kind", [Nvfp4Matrix, Nvfp4PackMatrix])
def test_files_are_read_in_place(tmp_path: Path, kind: type[Nvfp4Matrix]) -> None:
    codes, scales, overall = arrays(6, 3)
    for each in (overall, overall[None]):
        files = [("U8", codes), ("F8_E4M3", scales), ("F32", each)]
        grouped.assert_files_are_read_in_place(tmp_path, kind.of(codes, scales, overall), files)


def test_experts_are_those_that_they_stand_for() -> None:
    first, down = (Nvfp4Matrix.of(*arrays(outs, groups)) for outs, groups in ((160, 7), (112, 5)))
    grouped.assert_experts_are_those_that_they_stand_for(first, down)


def test_what_is_no_weight_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for codes, scales, overall in (
        ((6, 24), (6, 4), ()),
        ((6, 24), (5, 3), ()),
        ((6, 20), (6, 2), ()),
        ((6, 24), (6, 3), (6,)),
    ):
        parts = [
            TensorLocation(tmp_path, 0, dtype, shape)
            for dtype, shape in (("U8", codes), ("F8_E4M3", scales), ("F32", overall))
        ]
        with pytest.raises(CheckpointError, match="no weight in nvfp4"):
            FORMAT.location(parts)
    matrix = Nvfp4Matrix.of(*arrays(6, 3))
    assert FORMAT.addresses(Nvfp4Matrix(matrix.codes, matrix.scales[::2], matrix.overall)) is None
