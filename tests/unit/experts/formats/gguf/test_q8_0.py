from __future__ import annotations

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import quantize

from faasmoe.experts.formats.gguf.base import GgufMatrix
from faasmoe.experts.formats.gguf.q8_0 import FORMAT


def test_what_gguf_made_of_a_weight_is_off_by_half_a_step_and_comes_back_as_it_was() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    blocks = quantize(weight, GGMLQuantizationType.Q8_0)
    found = FORMAT.widened(GgufMatrix(FORMAT.layout, blocks), slice(None))
    groups = weight.reshape(5, 3, 32)
    step = np.abs(groups).max(2, keepdims=True) / 127
    assert (np.abs(found.reshape(5, 3, 32) - groups) <= 0.57 * step).all()  # half, and float16's of 127 steps
    assert np.array_equal(quantize(found, GGMLQuantizationType.Q8_0)[:, 2:34], blocks[:, 2:34])
