from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from faasmoe.errors import CheckpointError
from faasmoe.experts import fused
from faasmoe.experts.dtypes import narrowed
from faasmoe.experts.formats.fp8 import FORMAT, Fp8Matrix
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.matvec import linear_rows
from tests.instruction_sets import on_each
from tests.products import assert_a_team_has_the_bits_of_one_thread
from tests.unit.experts.formats import grouped

instruction_set = on_each(matvec, team, fused)

KINDS = ["blocks", "rows", "rows, flat", "one", "one, flat", "one, of no dimension"]


def arrays(
    outs: int, ins: int, kind: str = "blocks", seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes are any numbers."""
    random = np.random.default_rng(seed)
    codes = grouped.random_bytes(random, outs, ins)
    codes[codes & 0x7F == 0x7F] = 1
    shapes = dict(
        zip(KINDS, [(-(-outs // 128), -(-ins // 128)), (outs, 1), (outs,), (1, 1), (1,), ()], strict=True)
    )
    return codes, random.uniform(-1, 1, shapes[kind]).astype(np.float32)


def numbers(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """As torch reads them."""
    return torch.from_numpy(codes).view(torch.float8_e4m3fn).double().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_is_its_code_times_the_scale_of_its_block_row_or_matrix(kind: str) -> None:
    codes, scales = arrays(300, 272, kind)
    whole = scales.reshape(-1, 1) if scales.ndim < 2 else scales
    if kind == "blocks":
        whole = whole[np.arange(300)[:, None] // 128, np.arange(272) // 128]
    grouped.assert_means(Fp8Matrix.of(codes, scales), numbers(codes) * whole)


def test_weights_are_those_of_transformers() -> None:
    for kind in ("blocks", "rows", "one"):
        codes, scales = arrays(256, 384, kind)
        eighths = torch.from_numpy(codes).view(torch.float8_e4m3fn)
        wanted = Fp8Dequantize(None)._dequantize_one(eighths, torch.from_numpy(scales), torch.float32)
        assert torch.equal(torch.from_numpy(Fp8Matrix.of(codes, scales).exact()), wanted)


@given(
    rows=st.integers(0, 9),
    outs=st.one_of(st.integers(1, 13), st.integers(126, 131)),
    ins=st.one_of(st.integers(1, 26), st.just(180)).map(lambda units: 16 * units),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=40)
def test_sums_are_rounded_once_and_have_the_same_bits_in_any_company(
    rows: int, outs: int, ins: int, kind: str, seed: int
) -> None:
    matrix = Fp8Matrix.of(*arrays(outs, ins, kind, seed))
    grouped.assert_is_a_linear_layer(matrix, matrix.exact(), rows, seed)


def test_every_code_is_read_and_those_that_are_no_numbers_give_nan() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    x, scales = torch.eye(16, dtype=torch.bfloat16), np.float32([[0.75]])
    wanted = torch.from_numpy(0.75 * numbers(codes).T).bfloat16()
    y = linear_rows(x, Fp8Matrix.of(codes, scales))
    rows = np.array([0, 8])  # of codes 0x7f and 0xff
    assert y[:, rows + 7].isnan().all()
    others = [i for i in range(16) if i not in rows + 7]
    assert torch.equal(y[:, others], wanted[:, others])


def test_the_last_row_of_a_map_is_not_read_beyond() -> None:
    """Codes of the next row that are no numbers, behind a row that ends within a vector, do not count."""
    codes, scales = arrays(2, 144, "rows")
    whole = linear_rows(torch.ones(1, 144).bfloat16(), Fp8Matrix.of(codes, scales))
    codes[1] = 0x7F
    y = linear_rows(torch.ones(1, 144).bfloat16(), Fp8Matrix.of(codes, scales))
    assert torch.equal(y[:, 0], whole[:, 0])
    assert y[:, 1].isnan().all()


def test_a_team_gives_the_bits_of_one_thread() -> None:
    matrix = Fp8Matrix.of(*arrays(9000, 80))
    assert_a_team_has_the_bits_of_one_thread(matrix, torch.randn(3, matrix.shape[1]).bfloat16())


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_in_place(tmp_path: Path, kind: str) -> None:
    codes, scales = arrays(6, 160, kind)
    grouped.assert_files_are_read_in_place(
        tmp_path, Fp8Matrix.of(codes, scales), [("F8_E4M3", codes), ("F32", scales)]
    )


def test_scales_may_be_bfloat16(tmp_path: Path) -> None:
    codes, scales = arrays(6, 160, "rows")
    half = narrowed(scales)
    grouped.assert_files_are_read_in_place(
        tmp_path, Fp8Matrix.of(codes, half), [("F8_E4M3", codes), ("BF16", half)]
    )


@pytest.mark.parametrize("kind", ["blocks", "rows", "one"])
def test_experts_are_those_that_they_stand_for(kind: str) -> None:
    first, down = Fp8Matrix.of(*arrays(224, 160, kind)), Fp8Matrix.of(*arrays(160, 112, kind))
    grouped.assert_experts_are_those_that_they_stand_for(first, down)


def test_what_is_no_weight_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for codes, scales in (
        ((300, 256), (3, 3)),
        ((300, 256), (2, 2)),
        ((4, 300, 256), (3, 2)),
        ((300, 256), (256,)),
    ):
        parts = [TensorLocation(tmp_path, 0, "F8_E4M3", codes), TensorLocation(tmp_path, 0, "F32", scales)]
        with pytest.raises(CheckpointError, match="no weight in fp8"):
            FORMAT.location(parts)
    codes_of, scales_of = arrays(6, 160)
    matrix = Fp8Matrix.of(codes_of, scales_of)
    assert FORMAT.addresses(Fp8Matrix(codes_of[::2], scales_of, 128)) is None
    assert FORMAT.addresses(Fp8Matrix(codes_of[:, :152].copy(), scales_of, 128)) is None
    assert FORMAT.addresses(Fp8Matrix(codes_of, scales_of.astype(np.float64), 128)) is None  # type: ignore[arg-type]
    assert FORMAT.addresses(matrix) is not None
