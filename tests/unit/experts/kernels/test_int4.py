from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from faasmoe.experts.kernels import int4
from tests.instruction_sets import on_each

SEEDS = st.integers(0, 2**32 - 1)
GROUPS = st.integers(1, 40)  # of a row: parts of a block, and several
PROPERTY = settings(deadline=None, max_examples=30)


instruction_set = on_each(int4)


def random(seed: int, *shape: int) -> NDArray[np.float32]:
    """Numbers of which some are far larger than the others."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) ** 3).astype(np.float32)


def steps_and_zeros(scales: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of each group, by what `int4_order.h` says."""
    row = scales[:, :4].copy().view("<f4")
    zero, byte = (scales[:, place::2].astype(np.float32) for place in (4, 5))
    exponent, mantissa = np.divmod(byte, np.float32(16))
    return row * (np.float32(2) ** (exponent - 15) * (1 + mantissa / 16)), zero / 16


def read(codes: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The weights, by what `int4_order.h` says of the order, one by one."""
    step, zero = steps_and_zeros(scales)
    outs, groups = step.shape
    found = np.empty((outs, groups, 32), np.float32)
    for out in range(outs):
        words = codes[out].view("<u4")
        for group in range(groups):
            block, lane = divmod(group, 16)
            width = min(16, groups - 16 * block)
            for code in range(32):
                line, place = divmod(code, 8)
                word = int(words[64 * block + width * line + lane])
                found[out, group, code] = word >> (8 * (place % 4) + 4 * (place // 4)) & 15
    return (step[:, :, None] * (found - zero[:, :, None])).reshape(outs, -1)


def drawn(seed: int, outs: int, groups: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Any codes and scales."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((outs, 1)).astype("<f4").view(np.uint8)
    bytes_ = generator.integers(0, 256, (outs, 18 * groups)).astype(np.uint8)
    return bytes_[:, 2 * groups :].copy(), np.concatenate([rows, bytes_[:, : 2 * groups]], axis=1)


@given(outs=st.integers(1, 4), groups=GROUPS, seed=SEEDS)
@PROPERTY
def test_bytes_mean_what_the_header_says(outs: int, groups: int, seed: int) -> None:
    codes, scales = drawn(seed, outs, groups)
    assert np.array_equal(int4.widened(codes, scales), read(codes, scales))


@given(groups=GROUPS, seed=SEEDS, size=st.sampled_from([1e-25, 1e-6, 1.0, 1e6, 1e37]))
@PROPERTY
def test_a_weight_is_off_by_half_a_step_at_most_or_is_cut_off(groups: int, seed: int, size: float) -> None:
    weight = random(seed, 3, 32 * groups)
    weight *= size / np.abs(weight).max()
    weight[0] = 0
    codes, scales = int4.converted(weight)
    exact, (step, zero) = int4.widened(codes, scales), steps_and_zeros(scales)
    step, zero = (each.astype(np.float64).repeat(32, axis=1) for each in (step, zero))
    inside = weight.astype(np.float64).clip(-zero * step, (15 - zero) * step)
    assert (np.abs(exact - inside) <= 0.5001 * step).all()
    assert (exact[0] == 0).all()


def test_scales_and_zeros_are_better_than_plain_ones() -> None:
    """Than those that make the smallest and the largest number the codes 0 and 15, or the farthest code 0 by 8."""
    weight = np.random.default_rng(0).standard_normal((8, 64, 32)).astype(np.float32)
    found = int4.widened(*int4.converted(weight.reshape(8, -1))).reshape(weight.shape)
    low, high = weight.min(2, keepdims=True), weight.max(2, keepdims=True)
    farthest = np.where(high > -low, high, low)
    step, symmetric = (high - low) / 15, -farthest / 8
    plain = np.rint((weight - low) / step) * step + low
    others = [plain, np.rint(weight / symmetric).clip(-8, 7) * symmetric]
    errors = [float(((each - weight) ** 2).sum()) for each in (found, *others)]
    assert errors[0] < 0.85 * errors[1] < 0.85 * errors[2]


def test_a_matrix_and_its_negative_are_equally_exact() -> None:
    weight = random(0, 20, 2048)
    there, back = int4.widened(*int4.converted(weight)), int4.widened(*int4.converted(-weight))
    errors = [float(((found - wanted) ** 2).sum()) for found, wanted in ((there, weight), (back, -weight))]
    assert max(errors) <= 1.005 * min(errors)


def test_what_int4_can_hold_stays_as_it_is() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 16 * 19)).astype(np.uint8)
    codes[:, ::16], codes[:, 1::16] = 0xF0, 0xF0  # so that all codes of a range are there, in whatever order
    scales = np.zeros((5, 4 + 2 * 19), np.uint8)
    scales[:, :4] = np.full((5, 1), 0.25, "<f4").view(np.uint8)
    scales[:, 4::2], scales[:, 5::2] = 16 * 7, np.arange(19) + 200
    weight = int4.widened(codes, scales)
    error = np.abs(int4.widened(*int4.converted(weight)) - weight)
    assert error.max() <= 0.05 * np.abs(weight).max()


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


def test_arrays_that_are_no_weight_are_refused() -> None:
    codes, scales = int4.converted(np.ones((4, 64), np.float32))
    for its, scale in ((codes[:3], scales), (codes[:, :16], scales[:, :6]), (codes.astype(np.int8), scales),
                       (codes, scales.astype(np.int16)), (codes[0], scales[0])):  # fmt: skip
        with pytest.raises(ValueError, match="no weight in int4"):
            int4.widened(its, scale)
