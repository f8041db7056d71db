"""Weights to int4 and int6 and back (`c/formats/int4_convert.c`); `c/formats/int4_order.h` has what bytes mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY

_convert = LIBRARY.function("int4_convert", ADDRESS, INT, INT, INT, ADDRESS, ADDRESS)
_widen = LIBRARY.function("int4_widen", ADDRESS, ADDRESS, INT, INT, INT, ADDRESS)

GROUP = 32  # consecutive weights of a row that share a scale and a zero


def group_bytes(bits: int) -> int:
    """Bytes of a group: its zero, its scale and its codes, each of 4 or 6 `bits`."""
    return 2 + GROUP * bits // 8


def converted(weight: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """`weight` `[out, in]` in 4 or 6 `bits`: blocks `[out, in / GROUP * group_bytes(bits)]` and scales `[out]`.

    Raises `ValueError` for a weight that is not finite, or whose `in` is no multiple of `GROUP`.
    """
    outs, ins = weight.shape
    if ins % GROUP:
        raise ValueError(f"rows of {ins} weights are no multiple of {GROUP}")
    weight = np.ascontiguousarray(weight, np.float32)
    blocks, scales = np.empty((outs, ins // GROUP * group_bytes(bits)), np.uint8), np.empty(outs, np.float32)
    _convert(weight.ctypes.data, outs, ins, bits, blocks.ctypes.data, scales.ctypes.data)
    if not np.isfinite(scales).all():
        raise ValueError("it holds a number that is not finite")
    return blocks, scales


def widened(blocks: NDArray[np.uint8], scales: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The weights `[out, in]` that blocks and scales stand for. Raises `ValueError` for arrays that stand for none."""
    if not readable(blocks, scales, bits):
        raise ValueError(f"no weight in int{bits}: {blocks.dtype} {blocks.shape}, {scales.dtype} {scales.shape}")
    outs, ins = len(blocks), blocks.shape[1] // group_bytes(bits) * GROUP
    weight = np.empty((outs, ins), np.float32)
    _widen(blocks.ctypes.data, scales.ctypes.data, outs, ins, bits, weight.ctypes.data)
    return weight


def readable(blocks: NDArray[Any], scales: NDArray[Any], bits: int) -> bool:
    """Whether the kernels can read such arrays."""
    return (
        blocks.dtype == np.uint8
        and scales.dtype == np.float32
        and blocks.ndim == 2
        and blocks.shape[1] % group_bytes(bits) == 0
        and scales.shape == blocks.shape[:1]
        and blocks.flags.c_contiguous
        and scales.flags.c_contiguous
    )
