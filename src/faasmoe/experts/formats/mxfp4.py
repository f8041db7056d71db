"""Weights in mxfp4 as gpt-oss publishes them: e2m1 in four bits with an e8m0 scale for each 32 of a row.

OCP Microscaling Formats 1.0, sections 5.3.3, 5.4.1 and 6.3: a weight is its code times 2^(scale - 127).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.formats.by_group import GroupedFormat, GroupedMatrix, Shape
from faasmoe.experts.kernels.kernel_format import KernelFormat

_HALVES = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.float32) / 2
E2M1 = np.concatenate([_HALVES, -_HALVES])
"""The number of each code: sign, two bits of exponent, one of mantissa."""


def e2m1(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers of `codes` `[out, n]`, two a byte, the lower half first: `[out, 2 n]`."""
    pairs: NDArray[np.float32] = np.stack([E2M1[codes & 15], E2M1[codes >> 4]], axis=-1)
    return pairs.reshape(len(codes), 2 * codes.shape[1])


class Mxfp4Matrix(GroupedMatrix):
    """A weight in mxfp4: scales are e8m0 `[out, in / 32]`. The scale 255 is no number."""

    format: ClassVar[str] = "mxfp4"
    kernel_format = KernelFormat.MXFP4
    code_bits = 4
    group = 32

    @staticmethod
    def shape_of(*parts: Shape) -> Shape:
        """See `GroupedMatrix`: blocks `[..., out, in / 32, 16]`, scales `[..., out, in / 32]`."""
        blocks, scales = parts
        if len(blocks) < 3 or blocks[:-1] != scales or blocks[-1] != 16:
            raise ValueError("not blocks and their scales")
        return (*scales[:-1], 32 * scales[-1])

    @classmethod
    def of(cls, *arrays: NDArray[Any]) -> Mxfp4Matrix:
        """See `GroupedMatrix`."""
        blocks, scales = arrays
        return cls(blocks.reshape(len(blocks), 16 * scales.shape[1]), scales)

    def exact(self) -> NDArray[np.float32]:
        """See `GroupedMatrix`."""
        with np.errstate(over="ignore"):  # a weight beyond float32 is infinite
            scales = np.ldexp(np.float32(1), self.scales.astype(np.int32) - 127)
            scales[self.scales == 255] = np.nan
            exact: NDArray[np.float32] = e2m1(self.codes) * np.repeat(scales, 32, axis=1)
        return exact

    def __getitem__(self, rows: slice) -> Mxfp4Matrix:
        """Some of its rows."""
        return Mxfp4Matrix(self.codes[rows], self.scales[rows])


class Mxfp4Format(GroupedFormat):
    """A weight is two tensors: uint8 blocks `[..., out, in / 32, 16]` and scales `[..., out, in / 32]`."""

    name = Mxfp4Matrix.format
    dtypes = (("U8",), ("U8",))
    endings = (("_blocks",), ("_scales",))

    def declared(self, settings: Mapping[str, Any]) -> bool:
        """See `WeightFormat`: as transformers writes it for gpt-oss."""
        return settings.get("quant_method") == "mxfp4"


FORMAT = Mxfp4Format(Mxfp4Matrix)
