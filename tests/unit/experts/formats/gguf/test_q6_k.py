from __future__ import annotations

import numpy as np

from faasmoe.experts.formats.gguf.base import GgufMatrix
from faasmoe.experts.formats.gguf.q6_k import FORMAT


def test_a_weight_is_its_code_less_32_by_the_group_s_scale() -> None:
    generator = np.random.default_rng(0)
    codes, scales = generator.permutation(256) % 64, generator.integers(-128, 128, 16)
    low, high = np.zeros(128, np.uint8), np.zeros(64, np.uint8)
    for i, code in enumerate(codes):
        half, quarter, j = i // 128, i % 128 // 32, i % 32
        low[64 * half + 32 * (quarter % 2) + j] |= (code & 15) << 4 * (quarter // 2)
        high[32 * half + j] |= code >> 4 << 2 * quarter
    block = low.tobytes() + high.tobytes() + scales.astype(np.int8).tobytes() + np.array([0.5], "<f2").tobytes()
    found = FORMAT.widened(GgufMatrix(FORMAT.layout, np.frombuffer(block, np.uint8)[None]), slice(None))
    assert np.array_equal(found[0], 0.5 * np.repeat(scales, 16) * (codes - 32))
