"""Weights in int8 with a float32 scale for each row: a row's largest weight is 127 or -127."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts import dtypes
from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.base import MULTIPLE, Addresses, MatrixLocation, WeightFormat
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.mapping import TensorLocation, map_array

_PIECE = 1 << 17  # weights that are converted at once, so that they stay in a cache
_LARGEST = 127  # symmetric: -128 is not used, so that a matrix and its negative are equally exact


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """A weight `[out, in]`: row i is `scale[i] * values[i]`."""

    format: ClassVar[str] = "int8"

    values: NDArray[np.int8]  # [out, in]
    scale: NDArray[np.float32]  # [out]

    @classmethod
    def nearest(cls, weight: NDArray[Any]) -> Int8Matrix:
        """The nearest to a plain weight, off by half a row's scale at most. Raises `ValueError` if it is not finite."""
        matrix = cls(np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32))
        rows = max(1, _PIECE // weight.shape[1])
        for first in range(0, len(weight), rows):
            piece = slice(first, first + rows)
            exact = dtypes.widened(weight[piece])
            scale = np.maximum(exact.max(1), -exact.min(1)) / _LARGEST
            if not np.isfinite(scale).all():
                raise ValueError("it holds a number that is not finite")
            steps = exact / np.where(scale > 0, scale, 1)[:, None]
            matrix.values[piece] = np.rint(steps, out=steps).clip(-_LARGEST, _LARGEST, out=steps)
            matrix.scale[piece] = scale
        return matrix

    def exact(self) -> NDArray[np.float32]:
        """The weight that the matrix represents, `[out, in]`."""
        return self.values * self.scale[:, None]

    @property
    def shape(self) -> tuple[int, ...]:
        """`[out, in]`."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.values.nbytes + self.scale.nbytes

    def __getitem__(self, rows: slice) -> Int8Matrix:
        """Some of its rows."""
        return Int8Matrix(self.values[rows], self.scale[rows])


@dataclass(frozen=True, slots=True)
class Int8Location:
    """The location of an int8 weight."""

    format: ClassVar[str] = "int8"

    values: TensorLocation  # I8 [out, in]
    scale: TensorLocation  # F32 [out]

    @property
    def shape(self) -> tuple[int, ...]:
        """`[out, in]`."""
        return self.values.shape

    @property
    def parts(self) -> tuple[TensorLocation, ...]:
        """See `MatrixLocation`."""
        return (self.values, self.scale)

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.values.nbytes + self.scale.nbytes

    def memory(self, width: int) -> int:
        """See `MatrixLocation`: weights stay in int8 in a model of any dtype."""
        return self.nbytes

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> Int8Matrix:
        """See `MatrixLocation`."""
        return Int8Matrix(map_array(self.values, read_ahead), map_array(self.scale, read_ahead))


class Int8Format(WeightFormat):
    """A weight is two tensors: `NAME` int8 `[out, in]` and `NAME.scale` float32 `[out]`.

    Only our own copies of checkpoints hold such weights, so none are recognised in a checkpoint.
    """

    name = Int8Matrix.format
    block_kernel = "faasmoe.experts.fused:FusedExperts"
    multiple = MULTIPLE

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`."""
        return Int8Location(*parts)

    def arrays(self, matrix: Int8Matrix) -> tuple[NDArray[Any], ...]:
        """See `WeightFormat`."""
        return (matrix.values, matrix.scale)

    def converted(self, name: str, shape: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `WeightFormat`."""
        return {name: ("I8", shape), f"{name}.scale": ("F32", shape[:1])}

    def convert(self, weight: NDArray[Any]) -> Int8Matrix:
        """See `WeightFormat`."""
        return Int8Matrix.nearest(weight)

    def addresses(self, matrix: Int8Matrix) -> Addresses | None:
        """See `WeightFormat`: matrices in memory with contiguous rows of a multiple of `MULTIPLE` columns."""
        values, scale = matrix.values, matrix.scale
        if (
            in_memory(values, "I8")
            and values.ndim == 2
            and values.shape[1] % MULTIPLE == 0
            and in_memory(scale, "F32")
            and scale.shape == values.shape[:1]
        ):
            return Addresses(address(values), address(scale), KernelFormat.INT8)
        return None

    def widened(self, matrix: Int8Matrix, rows: slice) -> NDArray[np.float32]:
        """See `WeightFormat`."""
        return matrix[rows].exact()


FORMAT = Int8Format()
