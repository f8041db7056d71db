"""Weights to int4 and back (`c/formats/int4_convert.c`); `c/formats/int4_order.h` tells what the bytes mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY

_convert = LIBRARY.function("int4_convert", ADDRESS, INT, INT, ADDRESS, ADDRESS)
_widen = LIBRARY.function("int4_widen", ADDRESS, ADDRESS, INT, INT, ADDRESS)

GROUP = 32  # consecutive weights of a row that share a scale and a zero
ROW_SCALE = 4  # bytes before those of the groups


def scales_width(ins: int) -> int:
    """Bytes of the scales of a row of so many weights."""
    return ROW_SCALE + 2 * (ins // GROUP)


def converted(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`weight` `[out, in]` in int4: codes `[out, in / 2]` and scales `[out, scales_width(in)]`.

    Raises `ValueError` for a weight that is not finite, or whose `in` is no multiple of `GROUP`.
    """
    outs, ins = weight.shape
    if ins % GROUP:
        raise ValueError(f"rows of {ins} weights are no multiple of {GROUP}")
    weight = np.ascontiguousarray(weight, np.float32)
    codes, scales = np.empty((outs, ins // 2), np.uint8), np.empty((outs, scales_width(ins)), np.uint8)
    _convert(weight.ctypes.data, outs, ins, codes.ctypes.data, scales.ctypes.data)
    if not np.isfinite(scales[:, :ROW_SCALE].copy().view(np.float32)).all():
        raise ValueError("it holds a number that is not finite")
    return codes, scales


def widened(codes: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The weights `[out, in]` that codes and scales stand for."""
    check(codes, scales)
    outs, ins = len(codes), 2 * codes.shape[1]
    weight = np.empty((outs, ins), np.float32)
    _widen(codes.ctypes.data, scales.ctypes.data, outs, ins, weight.ctypes.data)
    return weight


def check(codes: NDArray[Any], scales: NDArray[Any]) -> None:
    """Raises `ValueError` for arrays that are no weight in int4 that the kernels can read."""
    if not (
        codes.dtype == np.uint8
        and scales.dtype == np.uint8
        and codes.ndim == 2
        and 2 * codes.shape[1] % GROUP == 0
        and scales.shape == (len(codes), scales_width(2 * codes.shape[1]))
        and codes.flags.c_contiguous
        and scales.flags.c_contiguous
    ):
        raise ValueError(f"no weight in int4: {codes.dtype} {codes.shape}, {scales.dtype} {scales.shape}")
