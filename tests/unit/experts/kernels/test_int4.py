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
BITS = pytest.mark.parametrize("bits", [4, 6])


instruction_set = on_each(int4)


def random(seed: int, *shape: int) -> NDArray[np.float32]:
    """Numbers of which some are far larger than the others."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) ** 3).astype(np.float32)


def group_bytes(bits: int) -> int:
    return {4: 18, 6: 26}[bits]


def steps_and_zeros(
    blocks: NDArray[np.uint8], scales: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of each group, by what `int4_order.h` says."""
    size, groups = 16 * group_bytes(bits), blocks.shape[1] // group_bytes(bits)
    places = [size * (group // 16) + 2 * (group % 16) for group in range(groups)]
    zero, byte = (blocks[:, [place + of for place in places]].astype(np.float32) for of in (0, 1))
    exponent, mantissa = np.divmod(byte, np.float32(16))
    return scales[:, None] * (np.float32(2) ** (exponent - 15 - bits) * (1 + mantissa / 16)), zero / 2 ** (
        8 - bits
    )


def read(blocks: NDArray[np.uint8], scales: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The weights, by what `int4_order.h` says of the order, one by one."""
    step, zero = steps_and_zeros(blocks, scales, bits)
    outs, groups = step.shape
    found = np.empty((outs, groups, 32), np.float32)
    for out in range(outs):
        for group in range(groups):
            block, lane = divmod(group, 16)
            width = min(16, groups - 16 * block)
            at = 16 * group_bytes(bits) * block + 2 * width
            words = blocks[out, at : at + (group_bytes(bits) - 2) * width].view("<u4").reshape(-1, width)[:, lane]
            for code in range(32):
                line, place = divmod(code, 8)
                found[out, group, code] = int(words[line]) >> (8 * (place % 4) + 4 * (place // 4)) & 15
                if bits == 6:
                    line, place = divmod(code, 16)
                    upper = int(words[4 + line]) >> (8 * (place % 4) + 2 * (place // 4)) & 3
                    found[out, group, code] += 16 * upper
    return (step[:, :, None] * (found - zero[:, :, None])).reshape(outs, -1)


def drawn(seed: int, outs: int, groups: int, bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Any bytes and scales."""
    generator = np.random.default_rng(seed)
    scales = generator.standard_normal(outs).astype(np.float32)
    return generator.integers(0, 256, (outs, group_bytes(bits) * groups)).astype(np.uint8), scales


def there_and_back(weight: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    return int4.widened(*int4.converted(weight, bits), bits)


@BITS
@given(outs=st.integers(1, 4), groups=GROUPS, seed=SEEDS)
@PROPERTY
def test_bytes_mean_what_the_header_says(bits: int, outs: int, groups: int, seed: int) -> None:
    blocks, scales = drawn(seed, outs, groups, bits)
    assert np.array_equal(int4.widened(blocks, scales, bits), read(blocks, scales, bits))


@BITS
@given(groups=GROUPS, seed=SEEDS, size=st.sampled_from([1e-25, 1e-6, 1.0, 1e6, 1e37]))
@PROPERTY
def test_a_weight_is_off_by_half_a_step_at_most_or_is_cut_off(
    bits: int, groups: int, seed: int, size: float
) -> None:
    weight = random(seed, 3, 32 * groups)
    weight *= size / np.abs(weight).max()
    weight[0] = 0
    blocks, scales = int4.converted(weight, bits)
    exact, (step, zero) = int4.widened(blocks, scales, bits), steps_and_zeros(blocks, scales, bits)
    step, zero = (each.astype(np.float64).repeat(32, axis=1) for each in (step, zero))
    inside = weight.astype(np.float64).clip(-zero * step, (2**bits - 1 - zero) * step)
    assert (np.abs(exact - inside) <= 0.5001 * step).all()
    assert (exact[0] == 0).all()


def errors_of(weight: NDArray[np.float32], bits: int) -> list[float]:
    """Squared, of the weights converted and of two simpler ways: each group by its range, and by its farthest number.

    In the one the smallest and the largest number are the first and the last code, in the other the farthest is the
    first.
    """
    found = there_and_back(weight.reshape(8, -1), bits).reshape(weight.shape)
    low, high = weight.min(2, keepdims=True), weight.max(2, keepdims=True)
    farthest, half = np.where(high > -low, high, low), 2 ** (bits - 1)
    step, symmetric = (high - low) / (2**bits - 1), -farthest / half
    by_range = np.rint((weight - low) / step) * step + low
    by_farthest = np.rint(weight / symmetric).clip(-half, half - 1) * symmetric
    return [float(((each - weight) ** 2).sum()) for each in (found, by_range, by_farthest)]


def test_scales_and_zeros_are_better_than_plain_ones() -> None:
    found, by_range, by_farthest = errors_of(np.random.default_rng(0).standard_normal((8, 64, 32), np.float32), 4)
    assert found < 0.85 * by_range < 0.85 * by_farthest


def test_in_six_bits_they_are_as_good_as_exact_ones_and_better_than_symmetric_ones() -> None:
    weight = np.random.default_rng(0).standard_normal((8, 64, 32), np.float32)
    found, by_range, by_farthest = errors_of(weight, 6)
    assert found < 1.05 * by_range < by_farthest
    assert found < errors_of(weight, 4)[0] / 12


@BITS
def test_a_matrix_and_its_negative_are_equally_exact(bits: int) -> None:
    weight = random(0, 20, 2048)
    there, back = there_and_back(weight, bits), there_and_back(-weight, bits)
    errors = [float(((found - wanted) ** 2).sum()) for found, wanted in ((there, weight), (back, -weight))]
    assert max(errors) <= 1.005 * min(errors)


@BITS
def test_what_a_format_can_hold_stays_as_it_is(bits: int) -> None:
    """Groups that have their first and last code, with zeros in the middle."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 2**bits, (5, 19, 32)).astype(np.float32)
    codes[:, :, 3], codes[:, :, 17] = 0, 2**bits - 1
    step = np.float32(2) ** np.arange(-9, 10, dtype=np.float32)[None, :, None]
    weight = (step * (codes - 2 ** (bits - 1))).reshape(5, -1)
    assert np.abs(there_and_back(weight, bits) - weight).max() <= 0.05 * np.abs(weight).max()


@BITS
def test_rows_are_converted_one_by_one(bits: int) -> None:
    weight = random(0, 7, 96)
    blocks, scales = int4.converted(weight, bits)
    for number, row in enumerate(weight):
        its, scale = int4.converted(row[None], bits)
        assert np.array_equal(its[0], blocks[number])
        assert scale[0] == scales[number]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 45, 95])
def test_weights_that_are_not_finite_are_refused(bad: float, place: int) -> None:
    weight = random(0, 2, 96)
    weight[1, place] = bad
    with pytest.raises(ValueError, match="not finite"):
        int4.converted(weight, 4)


@pytest.mark.parametrize("ins", [1, 16, 48])
def test_rows_of_no_whole_groups_are_refused(ins: int) -> None:
    with pytest.raises(ValueError, match=f"rows of {ins} weights are no multiple of 32"):
        int4.converted(np.ones((2, ins), np.float32), 4)


@BITS
def test_arrays_that_are_no_weight_are_refused(bits: int) -> None:
    blocks, scales = int4.converted(np.ones((4, 64), np.float32), bits)
    for its, scale in ((blocks[:3], scales), (blocks[:, :16], scales), (blocks.astype(np.int8), scales),
                       (blocks, scales.astype(np.float64)), (blocks[0], scales[0])):  # fmt: skip
        with pytest.raises(ValueError, match=f"no weight in int{bits}"):
            int4.widened(its, scale, bits)
