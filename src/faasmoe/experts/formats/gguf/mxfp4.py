"""GGUF's MXFP4: codes in e2m1 and a scale in e8m0 for each 32 weights, 4.25 bits a weight.

The numbers are those of `experts.formats.mxfp4`, which is how safetensors files have them. In GGUF a scale lies before
the codes of its group, and byte j of these holds codes j and j + 16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.formats.gguf.base import Blocks, GgufFormat, GgufLayout
from faasmoe.experts.formats.mxfp4 import E2M1
from faasmoe.experts.kernels.kernel_format import KernelFormat


class GgufMxfp4Format(GgufFormat):
    """A block is the scale and 16 bytes of codes: a weight is its code times 2^(scale - 127).

    255 is a scale like the others, as ggml reads it (OCP Microscaling Formats 1.0, 5.4.1, has it as no number).
    """

    name = "gguf_mxfp4"
    layout = GgufLayout(name, 32, 17)
    kernel = KernelFormat.GGUF_MXFP4

    @staticmethod
    def numbers(blocks: Blocks) -> NDArray[np.float32]:
        """See `GgufFormat`."""
        scales = np.ldexp(np.float32(0.5), blocks[:, :1].astype(np.int32) - 127)
        codes = np.concatenate([blocks[:, 1:] & 15, blocks[:, 1:] >> 4], axis=1)
        with np.errstate(over="ignore"):  # a weight beyond float32 is infinite
            exact: NDArray[np.float32] = scales * (2 * E2M1[codes])
        return exact


FORMAT = GgufMxfp4Format()
