"""Weights in GGUF's formats of which every byte is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faasmoe.experts.formats.gguf import mxfp4, q4_k, q6_k, q8_0
from faasmoe.experts.formats.gguf.base import GgufFormat, GgufMatrix

FORMATS: list[GgufFormat] = [q8_0.FORMAT, q4_k.FORMAT, q6_k.FORMAT, mxfp4.FORMAT]
# where float16 lie in a block
HALVES: dict[str, Sequence[int]] = {"q8_0": (0,), "q4_k": (0, 2), "q6_k": (208,), "gguf_mxfp4": ()}


def drawn(format: GgufFormat, outs: int, blocks: int, seed: int) -> GgufMatrix:
    """All codes and scales there are, but for e8m0; float16 of either sign, and e8m0, from 2^-10 to 2."""
    generator = np.random.default_rng(seed)
    found = generator.integers(0, 256, (outs, blocks, format.layout.nbytes)).astype(np.uint8)
    for place in HALVES[format.name]:
        size = generator.uniform(-10, 1, (outs, blocks, 1))
        sign = generator.choice([-1, 1], (outs, blocks, 1))
        found[:, :, place : place + 2] = (sign * 2**size).astype("<f2").view(np.uint8)
    if format is mxfp4.FORMAT:
        found[:, :, 0] = generator.integers(118, 129, (outs, blocks))
    return GgufMatrix(format.layout, found.reshape(outs, -1))
