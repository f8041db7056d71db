from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.experts.formats.int4 import FORMAT, GROUP, Int4Location, Int4Matrix
from faasmoe.experts.formats.registry import addresses, format_of
from faasmoe.experts.kernels import expert
from faasmoe.experts.mapping import TensorLocation
from tests.unit.experts.kernels.test_matvec import operands


def test_its_shape_is_the_weights() -> None:
    matrix = Int4Matrix.nearest(np.random.default_rng(0).standard_normal((6, 96)).astype(np.float32))
    assert matrix.shape == matrix.exact().shape == (6, 96)
    assert matrix.nbytes == 6 * 96 // 2 + 2 * 6 * 3  # 4.5 bits a weight
    part = matrix[2:5]
    assert part.shape == (3, 96)
    assert np.array_equal(part.exact(), matrix.exact()[2:5])
    assert format_of(matrix) is FORMAT


def test_files_hold_half_a_byte_for_each_weight() -> None:
    assert FORMAT.converted("a", (6, 96)) == {"a": ("U8", (6, 48)), "a.scale": ("BF16", (6, 3))}
    matrix = FORMAT.convert(torch.randn(6, 96).bfloat16())
    arrays = FORMAT.arrays(matrix)
    assert [(array.dtype, tuple(array.shape)) for array in arrays] == [
        (torch.uint8, (6, 48)),
        (torch.bfloat16, (6, 3)),
    ]
    assert sum(array.nbytes for array in arrays) == matrix.nbytes


def test_a_location_loads_what_was_written(tmp_path) -> None:
    matrix = FORMAT.convert(torch.randn(6, 96))
    arrays = [array.view(torch.uint8) for array in FORMAT.arrays(matrix)]
    (tmp_path / "weights").write_bytes(b"".join(array.numpy().tobytes() for array in arrays))
    codes = TensorLocation(tmp_path / "weights", 0, "U8", (6, 48))
    place = FORMAT.location([codes, TensorLocation(tmp_path / "weights", 288, "BF16", (6, 3))])
    assert isinstance(place, Int4Location)
    assert place.shape == (6, 96)
    assert place.memory(2) == place.nbytes == matrix.nbytes
    assert np.array_equal(place.map().exact(), matrix.exact())


def test_a_transposed_weight_is_converted_as_its_rows() -> None:
    weight = torch.randn(64, 5)
    assert np.array_equal(FORMAT.convert(weight.t()).exact(), FORMAT.convert(weight.t().contiguous()).exact())


@given(
    rows=st.integers(0, 9),
    outs=st.integers(1, 13),
    groups=st.integers(1, 20),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_a_linear_layer_has_the_same_bits_in_any_company(
    rows: int, outs: int, groups: int, biased: bool, seed: int
) -> None:
    x, weight, bias = operands(rows, outs, GROUP * groups, seed)
    matrix, its_bias = FORMAT.convert(weight), bias if biased else None
    y = expert.linear(x, matrix, its_bias, transposed=False)
    assert y.dtype == torch.bfloat16
    exact = torch.from_numpy(matrix.exact()).double()
    wanted = x.double() @ exact.T + (bias.double() if biased else 0)
    size = x.double().abs() @ exact.abs().T + wanted.abs()
    assert ((y.double() - wanted).abs() <= 2**-7 * size).all()
    for row, its in zip(x, y, strict=True):
        assert torch.equal(expert.linear(row[None], matrix, its_bias, transposed=False)[0], its)


def test_rows_in_float32_and_transposed_weights_are_refused() -> None:
    matrix = FORMAT.convert(torch.randn(4, 32))
    with pytest.raises(ValueError, match=r"for rows in bfloat16, not torch\.float32"):
        expert.linear(torch.randn(1, 32), matrix, None, transposed=False)
    with pytest.raises(ValueError, match="are not transposed"):
        expert.linear(torch.randn(1, 32).bfloat16(), matrix, None, transposed=True)


def test_kernels_for_scales_of_rows_do_not_read_it() -> None:
    assert addresses(FORMAT.convert(torch.randn(4, 32))) is None
