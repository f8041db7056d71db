"""Weights in int4 with a scale and a zero for each group of 32, a byte each: 4.5 bits a weight.

They lie in the order in which the kernels read them (`kernels/c/formats/int4_order.h`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts import dtypes
from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.base import Addresses, MatrixLocation, WeightFormat
from faasmoe.experts.kernels import int4
from faasmoe.experts.kernels.int4 import GROUP, scales_width
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.mapping import TensorLocation, map_array


@dataclass(frozen=True, slots=True)
class Int4Matrix:
    """A weight `[out, in]`: those of a group are its scale times (a code from 0 to 15 - the group's zero)."""

    format: ClassVar[str] = "int4"

    codes: NDArray[np.uint8]  # [out, in / 2]
    scales: NDArray[np.uint8]  # [out, scales_width(in)]

    @classmethod
    def nearest(cls, weight: NDArray[Any]) -> Int4Matrix:
        """The one with nearly the least squared error in each group of `weight` `[out, in]`.

        Raises `ValueError` for a weight that is not finite, or whose rows are no whole groups.
        """
        return cls(*int4.converted(dtypes.widened(weight)))

    def exact(self) -> NDArray[np.float32]:
        """The weight that the matrix represents, `[out, in]`."""
        exact: NDArray[np.float32] = int4.widened(self.codes, self.scales)
        return exact

    @property
    def shape(self) -> tuple[int, int]:
        """`[out, in]`."""
        return len(self.codes), 2 * self.codes.shape[1]

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.codes.nbytes + self.scales.nbytes

    def __getitem__(self, rows: slice) -> Int4Matrix:
        """Some of its rows."""
        return Int4Matrix(self.codes[rows], self.scales[rows])


@dataclass(frozen=True, slots=True)
class Int4Location:
    """The location of a weight in int4."""

    format: ClassVar[str] = "int4"

    codes: TensorLocation  # U8 [out, in / 2]
    scales: TensorLocation  # U8 [out, scales_width(in)]

    @property
    def shape(self) -> tuple[int, ...]:
        """`[out, in]`."""
        *rest, half = self.codes.shape
        return (*rest, 2 * half)

    @property
    def parts(self) -> tuple[TensorLocation, ...]:
        """See `MatrixLocation`."""
        return (self.codes, self.scales)

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.codes.nbytes + self.scales.nbytes

    def memory(self, width: int) -> int:
        """See `MatrixLocation`: weights stay in int4 in a model of any dtype."""
        return self.nbytes

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> Int4Matrix:
        """See `MatrixLocation`."""
        return Int4Matrix(map_array(self.codes, read_ahead), map_array(self.scales, read_ahead))


class Int4Format(WeightFormat):
    """A weight is two tensors: `NAME` uint8 `[out, in / 2]` and `NAME.scale` uint8 `[out, 4 + in / 16]`.

    Only our own copies of checkpoints hold such weights, so none are recognised in a checkpoint.
    """

    name = Int4Matrix.format
    block_kernel = "faasmoe.experts.fused:FusedExperts"
    head = (
        "int8"  # in int4 it costs as much quality as all other weights together (`python -m benchmarks.quality`)
    )
    multiple = GROUP

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`."""
        return Int4Location(*parts)

    def arrays(self, matrix: Int4Matrix) -> tuple[NDArray[Any], ...]:
        """See `WeightFormat`."""
        return (matrix.codes, matrix.scales)

    def converted(self, name: str, shape: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `WeightFormat`."""
        outs, ins = shape
        return {name: ("U8", (outs, ins // 2)), f"{name}.scale": ("U8", (outs, scales_width(ins)))}

    def convert(self, weight: NDArray[Any]) -> Int4Matrix:
        """See `WeightFormat`."""
        return Int4Matrix.nearest(weight)

    def addresses(self, matrix: Int4Matrix) -> Addresses | None:
        """See `WeightFormat`: matrices in memory with contiguous rows of whole groups."""
        codes, scales = matrix.codes, matrix.scales
        if (
            in_memory(codes, "U8")
            and codes.ndim == 2
            and in_memory(scales, "U8")
            and scales.shape == (len(codes), scales_width(2 * codes.shape[1]))
            and 2 * codes.shape[1] % GROUP == 0
        ):
            return Addresses(address(codes), address(scales), KernelFormat.INT4)
        return None

    def widened(self, matrix: Int4Matrix, rows: slice) -> NDArray[np.float32]:
        """See `WeightFormat`."""
        return matrix[rows].exact()


FORMAT = Int4Format()
