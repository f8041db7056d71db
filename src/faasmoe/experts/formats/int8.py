"""Weights in int8 with a float32 scale for each row: a row's largest weight is 127 or -127."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from faasmoe.experts.formats.base import MULTIPLE, Addresses, MatrixLocation, WeightFormat
from faasmoe.experts.mapping import TensorLocation, map_tensor

_PIECE = 1 << 17  # weights that are converted at once, so that they stay in a cache
_LARGEST = 127  # symmetric: -128 is not used, so that a matrix and its negative are equally exact
_WIDEN_PIECE = 1 << 20  # weights that are made bfloat16 at once


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """A weight `[out, in]`: row i is `scale[i] * values[i]`."""

    format: ClassVar[str] = "int8"

    values: Tensor  # int8 [out, in]
    scale: Tensor  # float32 [out]

    @classmethod
    def nearest(cls, weight: Tensor) -> Int8Matrix:
        """The nearest to `weight`, off by half a row's scale at most. Raises `ValueError` if that is not finite."""
        matrix = cls(torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight)))
        rows = max(1, _PIECE // weight.shape[1])
        for first in range(0, len(weight), rows):
            piece = slice(first, first + rows)
            exact = weight[piece].float()
            scale = exact.abs().amax(1) / _LARGEST
            steps = exact / torch.where(scale > 0, scale, 1)[:, None]
            matrix.values[piece] = steps.round_().clamp_(-_LARGEST, _LARGEST)
            matrix.scale[piece] = scale
        if not matrix.scale.isfinite().all():
            raise ValueError("it holds a number that is not finite")
        return matrix

    def exact(self) -> Tensor:
        """The weight that the matrix represents, `[out, in]` float32."""
        return self.values.float() * self.scale[:, None]

    @property
    def shape(self) -> torch.Size:
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

    def map(self, dtype: torch.dtype | None = None, read_ahead: bool = False) -> Int8Matrix:
        """See `MatrixLocation`."""
        return Int8Matrix(map_tensor(self.values, read_ahead), map_tensor(self.scale, read_ahead))


class Int8Format(WeightFormat):
    """A weight is two tensors: `NAME` int8 `[out, in]` and `NAME.scale` float32 `[out]`.

    Only our own copies of checkpoints hold such weights, so none are recognised in a checkpoint.
    """

    name = Int8Matrix.format
    block_kernel = "faasmoe.experts.kernels.fused:FusedExperts"
    multiple = MULTIPLE

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`."""
        return Int8Location(*parts)

    def arrays(self, matrix: Int8Matrix) -> tuple[Tensor, ...]:
        """See `WeightFormat`."""
        return (matrix.values, matrix.scale)

    def converted(self, name: str, shape: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `WeightFormat`."""
        return {name: ("I8", shape), f"{name}.scale": ("F32", shape[:1])}

    def convert(self, weight: Tensor) -> Int8Matrix:
        """See `WeightFormat`."""
        return Int8Matrix.nearest(weight)

    def addresses(self, matrix: Int8Matrix) -> Addresses | None:
        """See `WeightFormat`: matrices in memory with contiguous rows of a multiple of `MULTIPLE` columns."""
        values, scale = matrix.values, matrix.scale
        if (
            values.dtype == torch.int8
            and values.dim() == 2
            and values.shape[1] % MULTIPLE == 0
            and values.is_contiguous()
            and values.device.type == "cpu"
            and scale.dtype == torch.float32
            and scale.shape == values.shape[:1]
            and scale.is_contiguous()
        ):
            return Addresses(values.data_ptr(), scale.data_ptr())
        return None

    def linear(self, x: Tensor, weight: Int8Matrix, bias: Tensor | None, transposed: bool) -> Tensor:
        """For rows in bfloat16. Weights become bfloat16, in which all of int8 is exact, piece by piece."""
        if x.dtype != torch.bfloat16 or transposed:
            raise ValueError(f"int8 weights are for rows in bfloat16, not {x.dtype}, and are not transposed")
        outs, ins = weight.shape
        y, at_once = torch.empty(len(x), outs), max(1, _WIDEN_PIECE // ins)
        for first in range(0, outs, at_once):
            part = slice(first, first + at_once)
            y[:, part] = F.linear(x, weight.values[part].to(x.dtype))
        y *= weight.scale
        return (y if bias is None else y + bias).to(x.dtype)


FORMAT = Int8Format()
