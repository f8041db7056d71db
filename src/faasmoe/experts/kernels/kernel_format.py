"""The formats of weights that kernels read."""

from __future__ import annotations

from enum import IntEnum


class KernelFormat(IntEnum):
    """`Format` of `kernels/c/linear/tile.h`: how weights and scales lie at their addresses, row by row.

    A format also tells the dtype of rows, biases and results.
    """

    BFLOAT16 = 0  # weights alone
    INT8 = 1  # scales: float32 [out], one for each row
    INT4 = 2  # see `kernels/c/formats/int4_order.h`
    Q8_0 = 8  # these three as in GGUF files, scales among the codes
    Q4_K = 9
    Q6_K = 10
    GROUPED_INT4 = 11  # codes row by row, and `Int4Groups` (`kernels/scales.py`)
    # Codes row by row, and `Scales` (`kernels/scales.py`)
    MXFP4 = 16  # e2m1, groups of 32; scales: e8m0
    NVFP4 = 17  # e2m1, groups of 16; scales: e4m3
    FP8 = 18  # e4m3, groups of 128 or whole rows; scales: float32
