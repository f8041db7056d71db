"""The formats of weights that kernels read."""

from __future__ import annotations

from enum import IntEnum


class KernelFormat(IntEnum):
    """`Format` of `kernels/c/linear/tile.h`: how weights and scales lie at their addresses, row by row."""

    BFLOAT16 = 0  # weights alone
    INT8 = 1  # scales: float32 [out], one for each row
    INT4 = 2  # see `kernels/c/formats/int4_order.h`
    # Codes row by row, and `Scales` (`kernels/scales.py`)
    MXFP4 = 16  # e2m1, groups of 32; scales: e8m0
    NVFP4 = 17  # e2m1, groups of 16; scales: e4m3
    FP8 = 18  # e4m3, groups of 128 or whole rows; scales: float32
