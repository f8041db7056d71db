"""Dtypes by the names that safetensors, artifacts and envelopes give them, and numpy's dtypes for their arrays.

numpy has neither bfloat16 nor the floats of eight bits: their arrays hold the bits, in unsigned integers. `uint16` is
nothing else, so an array of it is bfloat16. A bfloat16 is the upper half of a float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BY_NAME: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(np.uint16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "F8_E4M3": np.dtype(np.uint8),
    "F8_E5M2": np.dtype(np.uint8),
}
BFLOAT16 = BY_NAME["BF16"]

_PIECE = 1 << 17  # numbers that are converted at once, so that they stay in a cache


def widened(array: NDArray[Any]) -> NDArray[np.float32]:
    """An array of floats, or of the bits of bfloat16, in float32: itself if it is float32, else a copy.

    Exact, but for float64.
    """
    if array.dtype == BFLOAT16:
        bits: NDArray[np.uint32] = np.left_shift(array, 16, dtype=np.uint32)
        return bits.view(np.float32)
    return array.astype(np.float32, copy=False)


def narrowed(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even. NaN stays NaN."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    rounded[np.isnan(array)] = 0x7FC0  # whose bits the rounding could carry into an infinity
    return rounded


def fits(name: str, into: str) -> bool:
    """Whether all numbers of a floating dtype are numbers of the dtype `into`, which is `F32` or `BF16`."""
    return name == into or (into == "F32" and BY_NAME[name].itemsize < BY_NAME[into].itemsize)


def converted(array: NDArray[Any], name: str) -> NDArray[Any]:
    """A copy of floats of any dtype, rounded to that of the name `F32` or `BF16`."""
    result = np.empty(array.shape, BY_NAME[name])
    source, to = array.reshape(-1), result.reshape(-1)
    for first in range(0, source.size, _PIECE):
        piece = widened(source[first : first + _PIECE])
        to[first : first + _PIECE] = narrowed(piece) if name == "BF16" else piece
    return result
