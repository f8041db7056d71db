"""The formats of weights that kernels read."""

from __future__ import annotations

from enum import IntEnum


class KernelFormat(IntEnum):
    """`Format` of `kernels/c/linear/tile.h`: how weights and scales lie at their addresses, row by row.

    A format also tells the dtype of rows, biases and results.
    """

    BFLOAT16 = 0  # weights alone
    INT8 = 1  # scales: float32 [out], one for each row
    INT4 = 2  # see `kernels/c/formats/int4_order.h`; scales: float32 [out], one for each row
    FLOAT32 = 3  # weights alone, as the following
    FLOAT16 = 4
    WIDE_BFLOAT16 = 5  # bfloat16 with rows in float32
    INT6 = 6  # as INT4
    Q8_0 = 8  # these four as in GGUF files, scales among the codes
    Q4_K = 9
    Q6_K = 10
    GGUF_MXFP4 = 11
    GROUPED_INT4 = 12  # codes row by row, and `Int4Groups` (`kernels/scales.py`)
    # Codes row by row, and `Scales` (`kernels/scales.py`)
    MXFP4 = 16  # e2m1, groups of 32; scales: e8m0
    NVFP4 = 17  # e2m1, groups of 16; scales: e4m3
    FP8 = 18  # e4m3, groups of 128 or whole rows; scales: float32

    @property
    def plain(self) -> bool:
        """Whether a weight is a number of its own; kernels read such matrices transposed as well."""
        return self in (self.BFLOAT16, self.FLOAT32, self.FLOAT16, self.WIDE_BFLOAT16)

    @property
    def rows(self) -> str:
        """Dtype of rows: `F32` or `BF16`."""
        return "F32" if self in (self.FLOAT32, self.FLOAT16, self.WIDE_BFLOAT16) else "BF16"

    def for_rows(self, dtype: str) -> KernelFormat | None:
        """The same weights for rows in `dtype` (`F32`, `BF16`); None: no kernel multiplies them."""
        if dtype == "F32" and self is self.BFLOAT16:
            return self.WIDE_BFLOAT16
        return self if self.rows == dtype else None
