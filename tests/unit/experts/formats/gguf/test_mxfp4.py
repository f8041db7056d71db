from __future__ import annotations

import numpy as np

from faasmoe.experts.formats.gguf.base import GgufMatrix
from faasmoe.experts.formats.gguf.mxfp4 import FORMAT
from faasmoe.experts.formats.mxfp4 import Mxfp4Matrix


def test_the_same_codes_in_the_order_of_safetensors_are_the_same_weights() -> None:
    """There byte j has codes 2j and 2j + 1; the scale 255 is a number in GGUF alone."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 16, (3, 5, 32)).astype(np.uint8)
    scales = generator.integers(0, 255, (3, 5, 1)).astype(np.uint8)
    blocks = np.concatenate([scales, codes[..., :16] | codes[..., 16:] << 4], axis=2)
    theirs = Mxfp4Matrix.of(codes[..., 0::2] | codes[..., 1::2] << 4, scales[..., 0])
    found = FORMAT.widened(GgufMatrix(FORMAT.layout, blocks.reshape(3, -1)), slice(None))
    assert np.array_equal(found, theirs.exact())
