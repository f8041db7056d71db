from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.dense.linear import matvec
from faasmoe.model.tensors import as_array, map_tensor
from tests.instruction_sets import on_each
from tests.products import assert_rounded_once, operands

instruction_set = on_each(matvec)

FLOATS = [torch.float32, torch.float16, torch.bfloat16]  # of weights, for rows in float32


def in_float32(dtype: torch.dtype, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Operands for rows in float32, whose weights use all bits of `dtype`."""
    random = torch.Generator().manual_seed(1)
    x, weight, bias = (each * (1 + torch.rand(each.shape, generator=random) / 128) for each in operands)
    return x.float(), weight.to(dtype), bias.float()


def assert_exact(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """`y` is as near to the exact result as float32 sums come."""
    added = torch.zeros(len(weight)) if bias is None else bias
    exact = x.double() @ weight.double().T + added.double()
    terms = x.double().abs() @ weight.double().abs().T + added.double().abs()
    assert y.dtype == torch.float32
    assert ((y.double() - exact).abs() <= terms * (4 + x.shape[1] / 16) * 2**-24).all()


@settings(deadline=None)
@given(
    rows=st.one_of(st.integers(0, 9), st.sampled_from([31, 32, 33, 65])),
    outs=st.integers(1, 13),
    ins=st.integers(1, 150),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_are_rounded_once(rows: int, outs: int, ins: int, biased: bool, seed: int) -> None:
    x, weight, bias = operands(rows, outs, ins, seed)
    y = matvec.linear_rows(x, weight, bias if biased else None)
    assert_rounded_once(y, x, weight, bias if biased else None)


@settings(deadline=None)
@given(
    rows=st.one_of(st.integers(0, 9), st.sampled_from([31, 32, 33, 65])),
    outs=st.integers(1, 13),
    ins=st.integers(1, 150),
    dtype=st.sampled_from(FLOATS),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_in_float32_lose_nothing(
    rows: int, outs: int, ins: int, dtype: torch.dtype, biased: bool, seed: int
) -> None:
    x, weight, bias = in_float32(dtype, *operands(rows, outs, ins, seed))
    y = matvec.linear_rows(x, weight, bias if biased else None)
    assert_exact(y, x, weight, bias if biased else None)


@pytest.mark.parametrize("rows", [1, 8, 19])
@pytest.mark.parametrize("dtype", FLOATS)
def test_wide_rows_in_float32_are_as_exact_as_torchs(dtype: torch.dtype, rows: int) -> None:
    x, weight, bias = in_float32(dtype, *operands(rows, 70, 4100, seed=rows))
    exact = x.double() @ weight.double().T + bias.double()
    ours = (matvec.linear_rows(x, weight, bias).double() - exact).norm()
    theirs = (torch.nn.functional.linear(x, weight.float(), bias).double() - exact).norm()
    assert ours <= 4 * theirs


def test_float16_weights_of_any_bits_are_read_exactly() -> None:
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    x = torch.zeros(2, 16)
    x[:, 5] = torch.tensor([1.0, -2.0])
    weight = torch.zeros(len(bits), 16, dtype=torch.float16)
    weight[:, 5] = bits
    y = matvec.linear_rows(x, weight)
    assert torch.equal(y.isnan(), bits.isnan().expand(2, -1))
    assert torch.equal(y.nan_to_num(0), torch.stack([bits.float(), -2 * bits.float()]).nan_to_num(0))


@settings(deadline=None)
@given(
    rows=st.integers(1, 40),
    outs=st.integers(1, 13),
    dtype=st.sampled_from([None, *FLOATS]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_row_has_the_same_bits_in_any_company(
    rows: int, outs: int, dtype: torch.dtype | None, seed: int
) -> None:
    x, weight, bias = operands(rows, outs, 48, seed)
    if dtype:
        x, weight, bias = in_float32(dtype, x, weight, bias)
    alone = [matvec.linear_rows(row[None], weight, bias) for row in x]
    assert torch.equal(matvec.linear_rows(x, weight, bias), torch.cat(alone))


@pytest.mark.parametrize("rows", [5, 13])
@pytest.mark.parametrize("dtype", [None, *FLOATS, torch.int8])
def test_wide_rows_have_the_same_bits_in_any_company(dtype: torch.dtype | None, rows: int) -> None:
    x, weight, bias = operands(rows, 50, 4112, seed=rows)
    matrix: Matrix = Int8Matrix.nearest(as_array(weight)) if dtype == torch.int8 else weight
    if dtype in FLOATS:
        x, matrix, bias = in_float32(dtype, x, weight, bias)
    alone = [matvec.linear_rows(row[None], matrix, bias) for row in x]
    assert torch.equal(matvec.linear_rows(x, matrix, bias), torch.cat(alone))


def test_sums_are_rounded_to_the_nearest_with_ties_to_even() -> None:
    patterns = np.random.default_rng(7).integers(0, 2**32, 100_000, np.uint32)
    ties = (patterns & 0xFFFF0000) | np.array([0x7FFF, 0x8000, 0x8001, 0xFFFF] * 25_000, np.uint32)
    edges = np.array([0, 1 << 31, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000], np.uint32)
    bits = np.concatenate([patterns, ties, edges])
    exponents = bits >> 23 & 0xFF
    bits = bits[(exponents > 40) | (bits << 1 == 0)]  # no part of one is denormal, which some instructions drop
    sums = torch.from_numpy(bits.view(np.float32))
    weight = torch.zeros(len(sums), 16, dtype=torch.bfloat16)
    weight[:, :3] = torch.from_numpy(parts(bits))
    y = matvec.linear_rows(torch.ones(1, 16, dtype=torch.bfloat16), weight)[0]
    assert torch.equal(y.isnan(), sums.isnan())
    assert torch.equal(y.nan_to_num(1), sums.bfloat16().nan_to_num(1))


def parts(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Three numbers of bfloat16 for each float32, `[n, 3]`, which add up to it without rounding."""
    rest, found = bits.view(np.float32), []
    rest = np.where(np.isnan(rest), np.float32(np.nan), rest)  # of other ones a part may be an infinity
    for _ in range(3):
        found.append((rest.view(np.uint32) & 0xFFFF0000).view(np.float32))
        rest = np.subtract(rest, found[-1], out=np.zeros_like(rest), where=np.isfinite(rest))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("offset", [0, 2, 6, 4096 - 2])
def test_weights_may_be_mapped_at_any_element(tmp_path: Path, rows: int, offset: int) -> None:
    x, weight, _ = operands(rows, 7, 64, seed=offset)
    path = tmp_path / "weights"
    path.write_bytes(b"\0" * offset + weight.view(torch.uint8).numpy().tobytes())
    mapped = map_tensor(TensorLocation(path, offset, "BF16", (7, 64)))
    assert mapped.data_ptr() % 4 == offset % 4  # the map itself is used, not an aligned copy
    assert_rounded_once(matvec.linear_rows(x, mapped), x, weight)


def test_rows_and_bias_may_be_strided() -> None:
    x, weight, bias = operands(6, 10, 32, seed=0)
    wanted = matvec.linear_rows(x[::2].contiguous(), weight[:5], bias[::2].contiguous())
    assert torch.equal(matvec.linear_rows(x[::2], weight[:5], bias[::2]), wanted)
    assert torch.equal(matvec.linear_rows(x.T.contiguous().T[::2], weight[:5], bias[::2]), wanted)


def test_nan_and_infinity_stay_in_their_row() -> None:
    x, weight, _ = operands(3, 5, 32, seed=0)
    whole = matvec.linear_rows(x, weight)
    x[0, 3], x[2, 4] = float("nan"), float("inf")
    y = matvec.linear_rows(x, weight)
    assert y[0].isnan().all()
    assert torch.equal(y[1], whole[1])
    assert y[2].isinf().all()


X, WEIGHT, BIAS = operands(2, 8, 32, seed=0)


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [
        (X.double(), WEIGHT.double(), None),
        (X.half(), WEIGHT.half(), None),
        (X, WEIGHT.float(), None),
        (X.float(), Int8Matrix.nearest(WEIGHT.float().numpy()), None),
        (X, WEIGHT.T.contiguous().T, None),
        (X, WEIGHT[::2], None),
        (X[:, :16], WEIGHT[:, :16], None),
        (X[:, :16], WEIGHT, None),
        (X[0], WEIGHT, None),
        (X, WEIGHT, BIAS.float()),
        (X.float(), WEIGHT.float(), BIAS),
        (X, WEIGHT, BIAS[:4]),
    ],
    ids=[
        "float64",
        "float16",
        "mixed",
        "int8 by float32",
        "transposed",
        "every other row",
        "part of the columns",
        "another width",
        "a vector",
        "float32 bias",
        "bfloat16 bias",
        "short bias",
    ],
)
def test_what_is_not_supported_is_refused(x: torch.Tensor, weight: Matrix, bias: torch.Tensor | None) -> None:
    assert not matvec.supports(x, weight, bias)
    with pytest.raises(ValueError, match="no kernel for"):
        matvec.linear_rows(x, weight, bias)
