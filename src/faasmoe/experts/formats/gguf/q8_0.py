"""GGUF's Q8_0: codes of eight bits and a float16 scale for each 32 weights, 8.5 bits a weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.formats.gguf.base import Blocks, GgufFormat, GgufLayout, halves
from faasmoe.experts.kernels.kernel_format import KernelFormat


class Q8Format(GgufFormat):
    """A block is the scale and 32 codes, int8: a weight is scale times code."""

    name = "q8_0"
    layout = GgufLayout(name, 32, 34)
    kernel = KernelFormat.Q8_0

    @staticmethod
    def numbers(blocks: Blocks) -> NDArray[np.float32]:
        """See `GgufFormat`."""
        exact: NDArray[np.float32] = halves(blocks[:, :2]) * blocks[:, 2:].view(np.int8)
        return exact


FORMAT = Q8Format()
