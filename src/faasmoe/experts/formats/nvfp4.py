"""Weights in nvfp4: e2m1 in four bits, an e4m3 scale for each 16 of a row, and one float32 scale for all.

ModelOpt's checkpoints (`weight`, `weight_scale`, `weight_scale_2`): a weight is code * scale * scale of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.arrays import address
from faasmoe.experts.formats.by_group import GroupedFormat, GroupedMatrix, Shape
from faasmoe.experts.formats.fp8 import E4M3, SCALES_OF_ROWS
from faasmoe.experts.formats.mxfp4 import e2m1
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.kernels.scales import Scales


@dataclass(frozen=True, eq=False)
class Nvfp4Matrix(GroupedMatrix):
    """A weight in nvfp4: scales are e4m3 `[out, in / 16]`."""

    format: ClassVar[str] = "nvfp4"
    kernel_format = KernelFormat.NVFP4
    code_bits = 4
    group = 16

    overall: NDArray[np.float32]  # []: multiplies all weights

    @property
    def factor(self) -> np.float32:
        """Of all weights."""
        return np.float32(self.overall)

    @staticmethod
    def shape_of(*parts: Shape) -> Shape:
        """See `GroupedMatrix`: codes `[..., out, in / 2]`, scales `[..., out, in / 16]`, overall `[...]`.

        `overall` may also be `[..., 1]`.
        """
        codes, scales, overall = parts
        *rest, outs, half = codes
        if scales != (*rest, outs, half // 8) or half % 8 or overall not in ((*rest,), (*rest, 1)):
            raise ValueError("not codes and their scales")
        return (*rest, outs, 2 * half)

    @classmethod
    def of(cls, *arrays: NDArray[Any]) -> Self:
        """See `GroupedMatrix`."""
        codes, scales, overall = arrays
        return cls(codes, scales, overall.reshape(()))

    def exact(self) -> NDArray[np.float32]:
        """See `GroupedMatrix`."""
        scales: NDArray[np.float32] = np.repeat(E4M3[self.scales] * self.factor, 16, axis=1)
        return e2m1(self.codes) * scales

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """See `GroupedMatrix`."""
        return (self.codes, self.scales, self.overall)

    def __getitem__(self, rows: slice) -> Self:
        """Some of its rows."""
        return type(self)(self.codes[rows], self.scales[rows], self.overall)

    @cached_property
    def kernel_scales(self) -> Scales:
        """See `GroupedMatrix`."""
        return Scales(address(self.scales), self.scales.strides[0], 1, 0, float(self.factor))


class Nvfp4Format(GroupedFormat):
    """A weight is codes U8 `[..., out, in / 2]`, scales e4m3 `[..., out, in / 16]` and a float32 for each matrix."""

    name = Nvfp4Matrix.format
    dtypes = (("U8",), ("F8_E4M3",), ("F32",))
    endings = (("",), ("_scale",), ("_scale_2",))
    unneeded: ClassVar[tuple[str, ...]] = SCALES_OF_ROWS

    def declared(self, settings: Mapping[str, Any]) -> bool:
        """See `WeightFormat`: as ModelOpt writes it."""
        return settings.get("quant_method") == "modelopt" and settings.get("quant_algo") == "NVFP4"


FORMAT = Nvfp4Format(Nvfp4Matrix)
