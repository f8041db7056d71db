"""GGUF's Q6_K: codes of six bits with a scale of eight bits for each 16 weights, 6.5625 bits a weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.formats.gguf.base import Blocks, GgufFormat, GgufLayout, halves
from faasmoe.experts.kernels.kernel_format import KernelFormat


class Q6KFormat(GgufFormat):
    """A block is 256 weights: 128 bytes of the codes' lower halves, 64 of their upper two bits, 16 scales, a float16.

    A weight is (the float16 times its group's scale, int8) times (its code - 32). Codes are in two halves of 128 with
    64 and 32 bytes. Code 32i + j of a half has its lower four bits in byte 32 (i % 2) + j, in the upper half of the
    byte if i > 1, and its upper two bits in byte j, from bit 2i on.
    """

    name = "q6_k"
    layout = GgufLayout(name, 256, 210)
    kernel = KernelFormat.Q6_K

    @staticmethod
    def numbers(blocks: Blocks) -> NDArray[np.float32]:
        """See `GgufFormat`."""
        scales = halves(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8)
        pairs = blocks[:, :128].reshape(-1, 2, 64)
        low = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(-1, 2, 4, 32)
        fours = blocks[:, 128:192].reshape(-1, 2, 1, 32)
        high = fours >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
        codes = (low | high << 4).reshape(-1, 16, 16).view(np.int8) - np.int8(32)
        exact: NDArray[np.float32] = scales[:, :, None] * codes
        return exact


FORMAT = Q6KFormat()
