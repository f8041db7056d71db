"""Weights in int4 with a scale and a zero for each group of 32, a byte each: 4.5 bits a weight.

They lie in the order in which the kernels read them (`kernels/c/formats/int4_order.h`). Of int6 all is the same but the
width of the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts import dtypes
from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.base import Addresses, MatrixLocation, WeightFormat
from faasmoe.experts.kernels import int4
from faasmoe.experts.kernels.int4 import GROUP, group_bytes
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.mapping import TensorLocation, map_array


@dataclass(frozen=True, slots=True)
class Int4Matrix:
    """A weight `[out, in]`: those of a group are its scale times (a code from 0 to 15 - the group's zero)."""

    format: ClassVar[str] = "int4"
    bits: ClassVar[int] = 4  # of a code
    kernel_format: ClassVar[KernelFormat] = KernelFormat.INT4

    blocks: NDArray[np.uint8]  # [out, in / 32 * group_bytes(bits)]
    scale: NDArray[np.float32]  # [out]

    @classmethod
    def nearest(cls, weight: NDArray[Any]) -> Self:
        """The one with nearly the least squared error in each group of `weight` `[out, in]`.

        Raises `ValueError` for a weight that is not finite, or whose rows are no whole groups.
        """
        return cls(*int4.converted(dtypes.widened(weight), cls.bits))

    def exact(self) -> NDArray[np.float32]:
        """The weight that the matrix represents, `[out, in]`."""
        exact: NDArray[np.float32] = int4.widened(self.blocks, self.scale, self.bits)
        return exact

    @property
    def shape(self) -> tuple[int, int]:
        """`[out, in]`."""
        return len(self.blocks), self.blocks.shape[1] // group_bytes(self.bits) * GROUP

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.blocks.nbytes + self.scale.nbytes

    def __getitem__(self, rows: slice) -> Self:
        """Some of its rows."""
        return type(self)(self.blocks[rows], self.scale[rows])


@dataclass(frozen=True, slots=True)
class Int4Location:
    """The location of a weight in int4, or in int6."""

    matrix: type[Int4Matrix]
    blocks: TensorLocation  # U8 [out, in / 32 * group_bytes(bits)]
    scale: TensorLocation  # F32 [out]

    @property
    def format(self) -> str:
        """See `MatrixLocation`."""
        return self.matrix.format

    @property
    def shape(self) -> tuple[int, ...]:
        """`[out, in]`."""
        *rest, width = self.blocks.shape
        return (*rest, width // group_bytes(self.matrix.bits) * GROUP)

    @property
    def parts(self) -> tuple[TensorLocation, ...]:
        """See `MatrixLocation`."""
        return (self.blocks, self.scale)

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.blocks.nbytes + self.scale.nbytes

    def memory(self, width: int) -> int:
        """See `MatrixLocation`: weights stay as they are in a model of any dtype."""
        return self.nbytes

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> Int4Matrix:
        """See `MatrixLocation`."""
        return self.matrix(map_array(self.blocks, read_ahead), map_array(self.scale, read_ahead))


class Int4Format(WeightFormat):
    """A weight is two tensors: `NAME` uint8 `[out, in / 32 * group_bytes(bits)]` and `NAME.scale` float32 `[out]`.

    Only our own copies of checkpoints hold such weights, so none are recognised in a checkpoint.
    """

    name = Int4Matrix.format
    block_kernel = "faasmoe.experts.fused:FusedExperts"
    head = (
        "int6"  # in int4 it costs as much quality as all other weights together (`python -m benchmarks.quality`)
    )
    multiple = GROUP
    matrix: ClassVar[type[Int4Matrix]] = Int4Matrix

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`."""
        return Int4Location(self.matrix, *parts)

    def arrays(self, matrix: Int4Matrix) -> tuple[NDArray[Any], ...]:
        """See `WeightFormat`."""
        return (matrix.blocks, matrix.scale)

    def converted(self, name: str, shape: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `WeightFormat`."""
        outs, ins = shape
        width = ins // GROUP * group_bytes(self.matrix.bits)
        return {name: ("U8", (outs, width)), f"{name}.scale": ("F32", (outs,))}

    def convert(self, weight: NDArray[Any]) -> Int4Matrix:
        """See `WeightFormat`."""
        return self.matrix.nearest(weight)

    def addresses(self, matrix: Int4Matrix) -> Addresses | None:
        """See `WeightFormat`: matrices in memory with contiguous rows of whole groups."""
        blocks, scale = matrix.blocks, matrix.scale
        if in_memory(blocks, "U8") and in_memory(scale, "F32") and int4.readable(blocks, scale, matrix.bits):
            return Addresses(address(blocks), address(scale), matrix.kernel_format)
        return None

    def widened(self, matrix: Int4Matrix, rows: slice) -> NDArray[np.float32]:
        """See `WeightFormat`."""
        return matrix[rows].exact()


FORMAT = Int4Format()
