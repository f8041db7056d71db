from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.errors import CheckpointError
from faasmoe.experts import fused
from faasmoe.experts.expert import ExpertForm, ExpertWeights, Gate
from faasmoe.experts.formats.gguf.base import GgufFormat, GgufLocation, GgufMatrix
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.fused import FusedExperts
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.matvec import linear_rows
from tests.experts import TorchExpert, assert_stands_for
from tests.instruction_sets import on_each
from tests.products import (
    assert_a_team_has_the_bits_of_one_thread,
    assert_linear,
    assert_rounded_once,
    operands,
)
from tests.unit.experts.formats.gguf.drawn import FORMATS, HALVES, drawn
from tests.unit.experts.formats.whole_numbers import in_whole_numbers

instruction_set = on_each(matvec, team, fused)
each_format = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)


@each_format
def test_weights_are_those_of_gguf(format: GgufFormat) -> None:
    kind = GGMLQuantizationType[format.name.removeprefix("gguf_").upper()]
    assert (format.layout.weights, format.layout.nbytes) == GGML_QUANT_SIZES[kind]
    matrix = drawn(format, 40, 7, seed=0)
    found = format.widened(matrix, slice(3, 39))
    assert found.dtype == np.float32
    assert found.shape == (36, 7 * format.layout.weights)
    assert np.array_equal(found, dequantize(matrix.blocks, kind)[3:39])


@each_format
def test_its_shape_is_the_weights(format: GgufFormat) -> None:
    matrix = drawn(format, 6, 3, seed=1)
    assert matrix.shape == (6, 3 * format.layout.weights)
    assert matrix.nbytes == 18 * format.layout.nbytes
    assert matrix[2:5].shape == (3, matrix.shape[1])
    assert np.array_equal(format.widened(matrix[2:5], slice(1, 3)), format.widened(matrix, slice(3, 5)))
    assert format.widened(matrix, slice(6, 9)).shape == (0, matrix.shape[1])
    assert format_of(matrix) is format


@each_format
def test_a_location_of_experts_loads_what_lies_there(format: GgufFormat, tmp_path: Path) -> None:
    matrix = drawn(format, 6, 2, seed=2)
    (tmp_path / "weights").write_bytes(b"x" + matrix.blocks.tobytes())  # at no multiple of anything
    whole = TensorLocation(tmp_path / "weights", 1, "U8", (2, 3, matrix.blocks.shape[1]))
    place = format.location([whole])
    assert isinstance(place, GgufLocation)
    assert place.shape == (2, 3, matrix.shape[1])
    entry = format.entry(place, 1)
    assert entry.shape == (3, matrix.shape[1])
    assert entry.memory(2) == entry.nbytes == place.nbytes // 2
    (blocks,) = format.arrays(entry.map())
    assert np.array_equal(blocks, matrix.blocks[3:])


@each_format
def test_arrays_that_are_no_whole_blocks_are_refused(format: GgufFormat) -> None:
    size = format.layout.nbytes
    for dtype, shape in (("U8", (4, size + 2)), ("I8", (4, size)), ("U8", (size,))):
        with pytest.raises(CheckpointError, match=rf"w: {dtype} .* no weight in {format.name}"):
            format.location([TensorLocation(Path("w"), 0, dtype, shape)])


def meant(matrix: GgufMatrix) -> torch.Tensor:
    return torch.from_numpy(format_of(matrix).widened(matrix, slice(None))).double()


@each_format
@given(
    rows=st.one_of(st.integers(0, 9), st.sampled_from([31, 33])),
    outs=st.integers(1, 13),
    blocks=st.integers(1, 20),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=25)
def test_sums_are_rounded_once_and_have_the_same_bits_in_any_company(
    format: GgufFormat, rows: int, outs: int, blocks: int, biased: bool, seed: int
) -> None:
    matrix = drawn(format, outs, blocks, seed)
    x, _, bias = operands(rows, *matrix.shape, seed)
    assert_linear(matrix, meant(matrix), x, bias if biased else None, seen=in_whole_numbers(x))


def test_rounding_x_costs_hardly_anything() -> None:
    """Also where numbers are of very different size. Rounding the results to bfloat16 costs 16 times as much."""
    x = (torch.randn(8, 2048).exp() * torch.randn(8, 2048).sign()).bfloat16()
    assert (in_whole_numbers(x) - x.double()).norm() < 1e-4 * x.double().norm()


@each_format
def test_many_rows_go_through_a_large_matrix_chunk_by_chunk(format: GgufFormat) -> None:
    matrix = drawn(format, 301, 6144 // format.layout.weights, seed=0)
    x = torch.randn(13, 6144).bfloat16()
    assert torch.equal(linear_rows(x, matrix), torch.cat([linear_rows(row[None], matrix) for row in x]))
    assert_a_team_has_the_bits_of_one_thread(matrix, x)


@each_format
def test_the_largest_codes_scales_and_numbers_are_no_error(format: GgufFormat) -> None:
    """Sums of whole numbers are as large as they get: they stay within 32 bits."""
    matrix = drawn(format, 4, 8, seed=0)
    places = {"q8_0": slice(2, 34), "q4_k": slice(4, 144), "q6_k": slice(0, 208)}.get(format.name, slice(1, 17))
    blocks = matrix.blocks.reshape(4, 8, format.layout.nbytes)
    for row, byte in enumerate((0, 0x7F, 0x80, 0xFF)):
        blocks[row, :, places] = byte
    for size in (1e-40, 1e-30, 255 / 128, 1e30):
        x = torch.full((2, matrix.shape[1]), size).bfloat16() * torch.tensor([[1], [-1]])
        assert_rounded_once(linear_rows(x, matrix), in_whole_numbers(x), meant(matrix))


@each_format
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_give_sums_that_are_not(format: GgufFormat, bad: float) -> None:
    matrix = drawn(format, 5, 8, seed=0)
    x = torch.randn(10, matrix.shape[1]).bfloat16()
    whole = linear_rows(x, matrix)
    x[3, 40] = bad
    y, others = linear_rows(x, matrix), torch.arange(10) != 3
    assert torch.equal(y[others], whole[others])
    assert not y[3].isfinite().any()


@pytest.mark.parametrize("format", FORMATS[:3], ids=lambda format: format.name)
def test_a_float16_that_is_small_or_not_finite_is_what_it_is(format: GgufFormat) -> None:
    matrix = drawn(format, 4, 1, seed=0)
    place = HALVES[format.name][0]
    matrix.blocks[:, place : place + 2] = np.array([[1], [0x83FF], [0x7C00], [0x7E00]], "<u2").view(np.uint8)
    x = torch.randn(1, matrix.shape[1]).bfloat16()
    y = linear_rows(x, matrix)
    assert_rounded_once(y[:, :2], in_whole_numbers(x), meant(matrix[:2]))
    assert not y[0, 2:].isfinite().any()


@each_format
@pytest.mark.parametrize("merged", [False, True])
def test_fused_experts_are_those_that_they_stand_for(format: GgufFormat, merged: bool) -> None:
    form, size = ExpertForm(Gate("glu", "silu")), format.layout.weights
    drawn_ones = [
        drawn(format, outs, 256 // size, seed) for seed, outs in enumerate([512] if merged else [256, 256])
    ]
    weights = ExpertWeights(tuple(map(tamed, drawn_ones)), tamed(drawn(format, 256, 256 // size, seed=9)))
    *means, down_means = map(meant, (*weights.first, weights.down))
    # what the gate gives is rounded to bfloat16: now and then to the other side
    assert_stands_for(weights, TorchExpert(tuple(means), down_means), form, most=0.004)


def tamed(matrix: GgufMatrix) -> GgufMatrix:
    """The matrix with scales a thousand times smaller, for experts that multiply three of them."""
    blocks = matrix.blocks.reshape(-1, matrix.layout.nbytes)
    if matrix.format == "gguf_mxfp4":
        blocks[:, 0] -= 10
    for place in HALVES[matrix.format]:
        halves = blocks[:, place : place + 2].copy().view("<f2")
        blocks[:, place : place + 2] = (halves / 1000).astype("<f2").view(np.uint8)
    return matrix


@pytest.mark.parametrize(("first", "second"), [(FORMATS[1], FORMATS[2]), (FORMATS[3], FORMATS[0])])
def test_the_second_layer_may_have_another_format(first: GgufFormat, second: GgufFormat) -> None:
    """Mixtures such as Q4_K_M have one for gate and up, and one for down."""
    form = ExpertForm(Gate("glu", "silu"))
    gate, up = (tamed(drawn(first, 256, 512 // first.layout.weights, seed)) for seed in (0, 1))
    down = tamed(drawn(second, 512, 256 // second.layout.weights, seed=2))
    weights = ExpertWeights((gate, up), down)
    assert FusedExperts.supports([weights], form, "BF16")
    assert_stands_for(weights, TorchExpert((meant(gate), meant(up)), meant(down)), form, most=0.004)
    assert not FusedExperts.supports([ExpertWeights((gate, down[:256]), down)], form, "BF16")


@each_format
def test_experts_whose_matrices_are_transposed_are_refused(format: GgufFormat) -> None:
    matrix = drawn(format, 256, 256 // format.layout.weights, seed=0)
    weights = [ExpertWeights((matrix, matrix), matrix)]
    assert FusedExperts.supports(weights, ExpertForm(Gate("glu", "silu")), "BF16")
    assert not FusedExperts.supports(weights, ExpertForm(Gate("glu", "silu"), transposed=True), "BF16")


@each_format
def test_what_the_kernel_cannot_read_is_refused(format: GgufFormat) -> None:
    matrix = drawn(format, 4, 2, seed=0)
    assert format.addresses(matrix) is not None
    for blocks in (
        matrix.blocks[::2],
        matrix.blocks[:, :-1].copy(),
        matrix.blocks.view(np.int8),
        matrix.blocks[None],
    ):
        assert format.addresses(GgufMatrix(format.layout, blocks)) is None
