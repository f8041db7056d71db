from __future__ import annotations

import numpy as np

from faasmoe.experts.formats.gguf.base import GgufMatrix
from faasmoe.experts.formats.gguf.q4_k import FORMAT, six_bits


def packed(scales: list[int], minimums: list[int]) -> bytes:
    """Eight numbers of six bits each, as `ggml` documents them."""
    first = [scales[j] | scales[j + 4] >> 4 << 6 for j in range(4)]
    second = [minimums[j] | minimums[j + 4] >> 4 << 6 for j in range(4)]
    third = [scales[j + 4] & 15 | (minimums[j + 4] & 15) << 4 for j in range(4)]
    return bytes(first + second + third)


def test_scales_and_minimums_are_found_in_their_bits() -> None:
    generator = np.random.default_rng(0)
    scales, minimums = generator.integers(0, 64, (2, 50, 8)).tolist()
    both = b"".join(map(packed, scales, minimums))
    found = six_bits(np.frombuffer(both, np.uint8).reshape(50, 12))
    assert [each.tolist() for each in found] == [scales, minimums]


def test_a_weight_is_its_code_by_the_group_s_scale_less_the_minimum() -> None:
    scales, minimums = list(range(1, 9)), list(range(60, 52, -1))
    codes = np.arange(256) % 16
    pairs = codes.reshape(4, 2, 32)
    block = np.array([0.5, 0.25], "<f2").tobytes() + packed(scales, minimums)
    block += (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8).tobytes()
    found = FORMAT.widened(GgufMatrix(FORMAT.layout, np.frombuffer(block, np.uint8)[None]), slice(None))
    wanted = 0.5 * np.repeat(scales, 32) * codes - 0.25 * np.repeat(minimums, 32)
    assert np.array_equal(found[0], wanted)
