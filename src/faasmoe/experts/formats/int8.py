"""Matrices in eight bits: each row's largest weight is 127 or -127, and a float32 says what one step of it weighs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from faasmoe.experts.mapping import TensorLocation, map_tensor

_PIECE = 1 << 17  # weights that are converted at once, so that they stay in a cache
_LARGEST = 127  # symmetric: -128 is not used, so that a matrix and its negative are equally exact


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """A weight `[out, in]`: row i is `scale[i] * values[i]`."""

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
        """What it stands for, `[out, in]` float32."""
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


Matrix = Tensor | Int8Matrix


@dataclass(frozen=True, slots=True)
class Int8Location:
    """Where a matrix in eight bits lies."""

    values: TensorLocation  # I8 [out, in]
    scale: TensorLocation  # F32 [out]

    @property
    def shape(self) -> tuple[int, ...]:
        """`[out, in]`."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.values.nbytes + self.scale.nbytes

    def map(self, read_ahead: bool = False) -> Int8Matrix:
        """The matrix, sharing the file's pages. Raises `CheckpointError` as `map_tensor` does."""
        return Int8Matrix(map_tensor(self.values, read_ahead), map_tensor(self.scale, read_ahead))


MatrixLocation = TensorLocation | Int8Location
