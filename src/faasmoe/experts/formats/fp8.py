"""Weights in fp8 (e4m3 without infinity) with float32 scales: for blocks of 128 x 128, for rows, or one for all.

A weight is its code times the scale, which DeepSeek and transformers call `weight_scale_inv`, others `weight_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts import dtypes
from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.base import MULTIPLE
from faasmoe.experts.formats.by_group import GroupedFormat, GroupedMatrix, Shape
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.kernels.scales import Scales

BLOCK = 128  # rows and columns that share a scale


def _numbers() -> NDArray[np.float32]:
    codes = np.arange(128)
    exponents, mantissas = codes >> 3, codes & 7
    steps = np.where(exponents > 0, 8 + mantissas, mantissas)
    numbers = np.ldexp(steps.astype(np.float32), np.maximum(exponents, 1) - 10)
    numbers[127] = np.nan
    return np.concatenate([numbers, -numbers])


SCALES_OF_ROWS: tuple[str, ...] = (".input_scale", ".activation_scale", ".k_scale", ".v_scale", ".output_scale")
"""Scales by which others quantise rows, keys and values. Ours are not quantised."""

E4M3 = _numbers()
"""The number of each code: sign, four bits of exponent, three of mantissa (OCP 8-bit Floating Point, section 3)."""


@dataclass(frozen=True, eq=False)
class Fp8Matrix(GroupedMatrix):
    """A weight in fp8: scales are float32, one for each 128 columns, or one for each row of them."""

    format: ClassVar[str] = "fp8"
    kernel_format = KernelFormat.FP8
    code_bits = 8
    group = MULTIPLE

    outs: int  # weight rows that share a row of scales

    @staticmethod
    def shape_of(*parts: Shape) -> Shape:
        """See `GroupedMatrix`: codes `[..., out, in]`, and scales as `_grid` says behind the same first dimensions."""
        codes, scales = parts
        *rest, outs, ins = codes
        if scales[: len(rest)] != (*rest,):
            raise ValueError("scales of other weights")
        _grid(outs, ins, scales[len(rest) :])
        return codes

    @classmethod
    def of(cls, *arrays: NDArray[Any]) -> Fp8Matrix:
        """See `GroupedMatrix`."""
        codes, scales = arrays
        rows, columns, outs = _grid(codes.shape[0], codes.shape[1], scales.shape)
        return cls(codes, np.ascontiguousarray(dtypes.widened(scales)).reshape(rows, columns), outs)

    def exact(self) -> NDArray[np.float32]:
        """See `GroupedMatrix`."""
        outs, ins = self.shape
        rows = np.repeat(self.scales, self.outs, axis=0)[:outs]
        if rows.shape[1] > 1:
            rows = np.repeat(rows, BLOCK, axis=1)[:, :ins]
        exact: NDArray[np.float32] = E4M3[self.codes] * rows
        return exact

    def __getitem__(self, rows: slice) -> Fp8Matrix:
        """Some of its rows."""
        return Fp8Matrix(self.codes[rows], self.scales[np.arange(len(self.codes))[rows] // self.outs], 1)

    def scales_in_memory(self) -> bool:
        """See `GroupedMatrix`."""
        outs, ins = self.shape
        return in_memory(self.scales, "F32") and self.scales.shape in (
            (-(-outs // self.outs), columns) for columns in (1, -(-ins // BLOCK))
        )

    @cached_property
    def kernel_scales(self) -> Scales:
        """See `GroupedMatrix`."""
        return Scales(address(self.scales), self.scales.strides[0], self.outs, self.scales.shape[1] == 1, 1.0)


def _grid(outs: int, ins: int, scales: Shape) -> tuple[int, int, int]:
    """Rows and columns of scales of the shape `scales`, and the weight rows that share a row of them.

    `[]`, `[1]`, `[1, 1]`: one for all; `[out]`, `[out, 1]`: one for each row; else one for each block. Raises
    `ValueError` for any other shape.
    """
    if scales in ((), (1,), (1, 1)):
        return 1, 1, max(1, outs)
    if scales in ((outs,), (outs, 1)):
        return outs, 1, 1
    if scales == (-(-outs // BLOCK), -(-ins // BLOCK)):
        return *scales, BLOCK
    raise ValueError(f"no scales of a weight {outs} x {ins}: {scales}")


class Fp8Format(GroupedFormat):
    """A weight is codes e4m3 `[..., out, in]` and scales, float32 or bfloat16."""

    name = Fp8Matrix.format
    dtypes = (("F8_E4M3",), ("F32", "BF16"))
    endings = (("",), ("_scale_inv", "_scale"))
    unneeded = SCALES_OF_ROWS

    def declared(self, settings: Mapping[str, Any]) -> bool:
        """See `WeightFormat`: as DeepSeek and transformers, compressed-tensors, or ModelOpt write it."""
        block = settings.get("weight_block_size")
        ours = settings.get("fmt", "e4m3") == "e4m3" and block in (None, [BLOCK, BLOCK], (BLOCK, BLOCK))
        return {
            "fp8": ours,
            "compressed-tensors": settings.get("format") in ("float-quantized", "naive-quantized"),
            "modelopt": settings.get("quant_algo") in ("FP8", "FP8_PB_WO"),
        }.get(str(settings.get("quant_method")), False)


FORMAT = Fp8Format(Fp8Matrix)
