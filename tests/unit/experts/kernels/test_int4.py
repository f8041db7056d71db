"""On every instruction set that the CPU has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from faasmoe.experts.kernels import int4
from faasmoe.experts.kernels.library import Library, instruction_sets

SEEDS = st.integers(0, 2**32 - 1)
GROUPS = st.integers(1, 40)  # of a row: parts of a block, and several
PROPERTY = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True, params=instruction_sets())
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(request.param)
    for name in ("convert", "widen", "packed_bytes", "pack", "products"):
        chosen = getattr(int4, f"_{name}")
        function = library.function(f"int4_{name}", *chosen.argtypes, result=chosen.restype)
        monkeypatch.setattr(int4, f"_{name}", function)


def random(seed: int, *shape: int) -> NDArray[np.float32]:
    """Numbers of which some are far larger than the others."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) ** 3).astype(np.float32)


def rounded(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    return torch.from_numpy(x).bfloat16().view(torch.uint16).numpy()


def numbers(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read(codes: NDArray[np.uint8], scales: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The weights, by what `int4.h` says of the order, one by one."""
    outs, groups = scales.shape
    weight = np.empty((outs, groups, 32), np.float32)
    for out in range(outs):
        words = codes[out].view("<u4")
        for group in range(groups):
            block, lane = divmod(group, 16)
            width = min(16, groups - 16 * block)
            for code in range(32):
                line, place = divmod(code, 8)
                word = int(words[64 * block + width * line + lane])
                half = word >> (8 * (place % 4) + 4 * (place // 4)) & 15
                weight[out, group, code] = half - 8
    return (weight * numbers(scales)[:, :, None]).reshape(outs, -1)


@given(outs=st.integers(1, 4), groups=GROUPS, seed=SEEDS)
@PROPERTY
def test_codes_lie_where_the_header_says(outs: int, groups: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, (outs, 16 * groups)).astype(np.uint8)
    scales = rounded(random(seed, outs, groups))
    assert np.array_equal(int4.widened(codes, scales), read(codes, scales))


@given(groups=GROUPS, seed=SEEDS, size=st.sampled_from([1e-25, 1e-6, 1.0, 1e6, 1e37]))
@PROPERTY
def test_a_weight_is_off_by_half_a_step_at_most_or_is_cut_off(groups: int, seed: int, size: float) -> None:
    weight = random(seed, 3, 32 * groups)
    weight *= size / np.abs(weight).max()
    weight[0] = 0
    codes, scales = int4.converted(weight)
    exact = int4.widened(codes, scales)
    steps = np.repeat(numbers(scales), 32, axis=1).astype(np.float64)
    ends = np.sort(np.stack([-8 * steps, 7 * steps]), axis=0)
    assert (np.abs(exact - weight.astype(np.float64).clip(*ends)) <= 0.50001 * np.abs(steps)).all()
    assert (exact[0] == 0).all()
    assert (scales[0] == 0).all()


@given(groups=GROUPS, seed=SEEDS)
@PROPERTY
def test_the_scale_is_better_than_plain_ones(groups: int, seed: int) -> None:
    """In each group than the one that makes the farthest number the level -8; in all than that for 7."""
    weight = random(seed, 2, 32 * groups).reshape(2, groups, 32)
    found = int4.widened(*int4.converted(weight.reshape(2, -1))).reshape(weight.shape)
    farthest = np.take_along_axis(weight, np.abs(weight).argmax(2, keepdims=True), 2)
    for level in (7, -8):
        step = farthest / level
        plain = step * np.rint(weight / step).clip(-8, 7)
        error, other = ((found - weight) ** 2).sum(2), ((plain - weight) ** 2).sum(2)
        assert error.sum() < other.sum()
    assert (error <= 1.02 * other + 1e-9).all()  # scales are rounded to bfloat16


@given(groups=GROUPS, seed=SEEDS)
@PROPERTY
def test_a_matrix_and_its_negative_are_equally_exact(groups: int, seed: int) -> None:
    weight = random(seed, 2, 32 * groups)
    (codes, scales), (negated, turned) = int4.converted(weight), int4.converted(-weight)
    assert np.array_equal(codes, negated)
    assert np.array_equal(scales ^ 0x8000, turned)


def test_what_int4_can_hold_stays_as_it_is() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 16 * 19)).astype(np.uint8)
    codes[:, :] |= 1
    weight = int4.widened(
        codes, rounded(2.0 ** np.random.default_rng(1).integers(-9, 9, (5, 19)).astype(np.float32))
    )
    assert np.array_equal(int4.widened(*int4.converted(weight)), weight)


def test_rows_are_converted_one_by_one() -> None:
    weight = random(0, 7, 96)
    codes, scales = int4.converted(weight)
    for number, row in enumerate(weight):
        its, scale = int4.converted(row[None])
        assert np.array_equal(its[0], codes[number])
        assert np.array_equal(scale[0], scales[number])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 45, 95])
def test_weights_that_are_not_finite_are_refused(bad: float, place: int) -> None:
    weight = random(0, 2, 96)
    weight[1, place] = bad
    with pytest.raises(ValueError, match="not finite"):
        int4.converted(weight)


@pytest.mark.parametrize("ins", [1, 16, 48])
def test_rows_of_no_whole_groups_are_refused(ins: int) -> None:
    with pytest.raises(ValueError, match=f"rows of {ins} weights are no multiple of 32"):
        int4.converted(np.ones((2, ins), np.float32))


def eighths(x: NDArray[np.uint16]) -> NDArray[np.float64]:
    """What the kernel makes of x: groups of 32 in eight bits, the largest number 127 or -127."""
    groups = numbers(x).reshape(len(x), x.shape[1] // 32, 32)
    most = np.abs(groups).max(2, keepdims=True)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 1e-36)
    return (np.rint(groups * inverse).astype(np.float64) * (most / np.float32(127))).reshape(x.shape)


@given(rows=st.integers(0, 20), outs=st.integers(1, 9), groups=GROUPS, seed=SEEDS)
@PROPERTY
def test_sums_are_exact_but_for_float32_and_have_the_same_bits_in_any_company(
    rows: int, outs: int, groups: int, seed: int
) -> None:
    x, weight = rounded(random(seed, rows, 32 * groups)), random(seed + 1, outs, 32 * groups)
    codes, scales = int4.converted(weight)
    sums = int4.products(x, codes, scales)
    exact = read(codes, scales).astype(np.float64)
    sizes = np.abs(eighths(x)) @ np.abs(exact).T
    assert (np.abs(sums - eighths(x) @ exact.T) <= 1e-6 * sizes).all()
    for row, wanted in zip(x, sums, strict=True):
        assert np.array_equal(int4.products(row[None], codes, scales)[0], wanted)
    if outs > 1:
        assert np.array_equal(int4.products(x, codes[1:], scales[1:]), sums[:, 1:])


def test_many_rows_go_through_a_large_matrix_chunk_by_chunk() -> None:
    x, weight = rounded(random(0, 13, 2048)), random(1, 601, 2048)
    codes, scales = int4.converted(weight)
    sums = int4.products(x, codes, scales)
    assert np.array_equal(sums, np.concatenate([int4.products(row[None], codes, scales) for row in x]))


def test_rounding_x_costs_half_a_percent() -> None:
    """Of the sums' size, for numbers without large ones among them."""
    generator = np.random.default_rng(0)
    x = rounded(generator.standard_normal((8, 2048)).astype(np.float32))
    codes, scales = int4.converted(generator.standard_normal((64, 2048)).astype(np.float32))
    exact = numbers(x).astype(np.float64) @ int4.widened(codes, scales).T
    error = int4.products(x, codes, scales) - exact
    assert np.sqrt((error**2).mean() / (exact**2).mean()) < 0.006


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_give_sums_that_are_not(bad: float) -> None:
    x = random(0, 8, 64)
    x[3, 40] = bad
    codes, scales = int4.converted(random(1, 5, 64))
    sums = int4.products(rounded(x), codes, scales)
    assert np.isfinite(sums[[0, 1, 2, 4, 5, 6, 7]]).all()
    assert not np.isfinite(sums[3]).any()


def test_extreme_rows_are_no_error() -> None:
    codes, scales = int4.converted(np.ones((3, 64), np.float32))
    for size in (0.0, 1e-40, 1e-30, 1e30, 3e36):
        x = rounded(np.full((2, 64), size, np.float32))
        wanted = 64 * numbers(x)[0, 0] if size > 1e-36 else 0
        assert np.allclose(int4.products(x, codes, scales), wanted, rtol=1e-2)


def test_operands_that_do_not_go_together_are_refused() -> None:
    codes, scales = int4.converted(np.ones((4, 64), np.float32))
    x = np.zeros((1, 64), np.uint16)
    for wrong in (np.zeros((1, 64), np.float32), np.zeros((1, 32), np.uint16), np.zeros(64, np.uint16)):
        with pytest.raises(ValueError, match="no kernel for"):
            int4.products(wrong, codes, scales)
    for its, scale in ((codes[:3], scales), (codes[:, :16], scales[:, :1]), (codes.astype(np.int8), scales),
                       (codes, scales.astype(np.int16)), (codes[0], scales[0])):  # fmt: skip
        with pytest.raises(ValueError, match="no weight in int4"):
            int4.products(x, its, scale)
