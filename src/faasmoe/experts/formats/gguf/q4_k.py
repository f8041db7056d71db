"""GGUF's Q4_K: codes of four bits with a scale and a minimum of six bits for each 32 weights, 4.5 bits a weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.formats.gguf.base import Blocks, GgufFormat, GgufLayout, halves
from faasmoe.experts.kernels.kernel_format import KernelFormat


class Q4KFormat(GgufFormat):
    """A block is 256 weights: two float16, 12 bytes of scales and minimums, 128 bytes of codes.

    A weight is (first float16 times its group's scale) times its code, less the second times its group's minimum. Byte
    32i + j of the codes holds code j of group 2i in its lower half, and that of group 2i + 1 in its upper half.
    """

    name = "q4_k"
    layout = GgufLayout(name, 256, 144)
    kernel = KernelFormat.Q4_K

    @staticmethod
    def numbers(blocks: Blocks) -> NDArray[np.float32]:
        """See `GgufFormat`."""
        scales, minimums = (part.astype(np.float32) for part in six_bits(blocks[:, 4:16]))
        scales *= halves(blocks[:, :2])
        minimums *= halves(blocks[:, 2:4])
        pairs = blocks[:, 16:].reshape(-1, 4, 32)
        codes = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)
        exact: NDArray[np.float32] = scales[:, :, None] * codes - minimums[:, :, None]
        return exact


def six_bits(packed: Blocks) -> tuple[Blocks, Blocks]:
    """The scales and the minimums of groups, `[blocks, 8]` each, from the 12 bytes that hold them.

    The first four of each lie in the lower six bits of bytes 0 to 3 and 4 to 7. Of the others the upper two bits lie
    above these, the lower four in the halves of bytes 8 to 11.
    """
    low, high, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, rest & 15 | low >> 6 << 4], axis=1)
    minimums = np.concatenate([high & 63, rest >> 4 | high >> 6 << 4], axis=1)
    return scales, minimums


FORMAT = Q4KFormat()
