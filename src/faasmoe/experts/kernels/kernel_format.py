"""The formats of weights that kernels read."""

from __future__ import annotations

from enum import IntEnum


class KernelFormat(IntEnum):
    """`Format` of `kernels/c/tile.h`: how weights and scales lie at their addresses, row by row."""

    BFLOAT16 = 0  # weights alone
    INT8 = 1  # scales: float32 [out], one for each row
    INT4 = 2  # see `kernels/c/int4_order.h`
    Q8_0 = 32  # as in GGUF files, scales among the codes
    Q4_K = 33
    Q6_K = 34
