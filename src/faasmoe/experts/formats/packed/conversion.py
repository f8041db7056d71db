"""Weights in int4 as AWQ, GPTQ and compressed-tensors publish them, converted to `grouped_int4` without loss.

All have eight codes in an int32, the first in the lowest bits. Scales are float16, float32, or bits of bfloat16. Each
function raises `ValueError` for arrays that make up no weight, or none that kernels can read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts import dtypes
from faasmoe.experts.formats.grouped_int4 import GROUPS, GroupedInt4Matrix

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The column, of eight, of each code of an int32 (`awq/quantize/packing_utils` of AutoAWQ)."""

_SYMMETRIC = 8  # the zero of weights that have none
Packed = NDArray[np.int32]


def from_pack_quantized(
    packed: Packed,
    scale: NDArray[Any],
    shape: tuple[int, int],
    zero_point: Packed | None = None,
    g_idx: NDArray[Any] | None = None,
) -> GroupedInt4Matrix:
    """compressed-tensors' `pack-quantized`: `weight_packed` `[out, in / 8]`, `weight_scale` `[out, groups]`.

    `shape` is `weight_shape`, `[out, in]`; `zero_point` packed along the rows, `[out / 8, groups]`. Codes and zeros of
    -8 to 7 are stored with 8 added.
    """
    outs, ins = shape
    groups = scale.shape[-1]
    _check("weight_packed", packed, (outs, -(-ins // 8)))
    _check_order(g_idx, ins, groups)
    zeros = np.full((outs, groups), _SYMMETRIC, np.uint8)
    if zero_point is not None:
        _check("weight_zero_point", zero_point, (-(-outs // 8), groups))
        zeros = _unpacked(zero_point, 0)[:outs]
    return _grouped(_unpacked(packed, 1)[:, :ins], scale, zeros)


def from_gptq(
    qweight: Packed, qzeros: Packed, scales: NDArray[Any], g_idx: NDArray[Any] | None = None, version: int = 1
) -> GroupedInt4Matrix:
    """GPTQ: `qweight` `[in / 8, out]`, `qzeros` `[groups, out / 8]`, `scales` `[groups, out]`, `g_idx` `[in]`.

    In version 1 (`checkpoint_format` `gptq`) one was taken off zeros before they were stored, in 2 (`gptq_v2`) not.
    """
    if version not in (1, 2):
        raise ValueError(f"GPTQ of version {version}: must be 1 or 2")
    groups, outs = scales.shape
    ins = 8 * len(qweight)
    _check("qweight", qweight, (ins // 8, outs))
    _check("qzeros", qzeros, (groups, -(-outs // 8)))
    _check_order(g_idx, ins, groups)
    zeros = _unpacked(qzeros, 1)[:, :outs] + np.uint8(version == 1)
    return _grouped(_unpacked(qweight, 0).T, scales.T, zeros.T)


def from_awq(qweight: Packed, qzeros: Packed, scales: NDArray[Any]) -> GroupedInt4Matrix:
    """AWQ (`version` `gemm`): `qweight` `[in, out / 8]`, `qzeros` `[groups, out / 8]`, `scales` `[groups, out]`."""
    groups, outs = scales.shape
    _check("qweight", qweight, (len(qweight), -(-outs // 8)))
    _check("qzeros", qzeros, (groups, -(-outs // 8)))
    codes, zeros = _unpacked(qweight, 1, AWQ_ORDER), _unpacked(qzeros, 1, AWQ_ORDER)
    return _grouped(codes[:, :outs].T, scales.T, zeros[:, :outs].T)


def _check(name: str, packed: Packed, shape: tuple[int, ...]) -> None:
    if packed.dtype != np.int32 or packed.shape != shape:
        raise ValueError(f"{name} is {packed.dtype} {list(packed.shape)}; must be int32 {list(shape)}")


def _check_order(g_idx: NDArray[Any] | None, ins: int, groups: int) -> None:
    """Groups of columns that are not consecutive come of GPTQ's `desc_act`, with the columns of x in another order."""
    if g_idx is not None and (
        groups == 0 or ins % groups or not np.array_equal(g_idx, np.arange(ins) // (ins // groups))
    ):
        raise ValueError(
            "g_idx: its groups are not consecutive columns (GPTQ's desc_act), which kernels cannot read"
        )


def _unpacked(packed: Packed, axis: int, order: tuple[int, ...] = tuple(range(8))) -> NDArray[np.uint8]:
    """Each int32 as eight codes along an axis; `order` tells the place of each."""
    shifts = np.empty(8, np.uint32)
    shifts[list(order)] = np.arange(0, 32, 4)
    words = np.ascontiguousarray(packed).view(np.uint32)
    codes = (np.expand_dims(words, axis + 1) >> (shifts[:, None] if axis == 0 else shifts) & 15).astype(np.uint8)
    shape = list(packed.shape)
    shape[axis] *= 8
    return codes.reshape(shape)


def _grouped(codes: NDArray[np.uint8], scales: NDArray[Any], zeros: NDArray[np.uint8]) -> GroupedInt4Matrix:
    """The matrix of codes `[out, in]`, scales and zeros `[out, groups]`; larger groups become several alike."""
    (outs, ins), groups = codes.shape, scales.shape[-1]
    if scales.dtype not in (np.float16, np.float32, dtypes.BFLOAT16) or scales.shape != (outs, groups):
        raise ValueError(
            f"scales are {scales.dtype} {list(scales.shape)}; must be floats, a row for each of {outs}"
        )
    if groups == 0 or ins % groups or ins // groups % GROUPS[0]:
        raise ValueError(f"{groups} groups in {ins} columns: must be whole multiples of {GROUPS[0]} columns")
    times = ins // groups // max(size for size in GROUPS if ins // groups % size == 0)
    return GroupedInt4Matrix(
        np.ascontiguousarray(codes[:, ::2] | codes[:, 1::2] << np.uint8(4)),
        np.ascontiguousarray(np.repeat(dtypes.widened(scales), times, axis=1)),
        np.ascontiguousarray(np.repeat(zeros, times, axis=1)),
    )
