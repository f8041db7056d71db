"""Matrices in eight bits: each row's largest weight is 127 or -127, and a float32 says what one step of it weighs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST = 127  # symmetric: -128 is not used, so that a matrix and its negative are equally exact


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """A weight `[out, in]`: row i is `scale[i] * values[i]`."""

    values: Tensor  # int8 [out, in]
    scale: Tensor  # float32 [out]

    @classmethod
    def nearest(cls, weight: Tensor) -> Int8Matrix:
        """The nearest to `weight`, off by half a row's scale at most. Raises `ValueError` if that is not finite."""
        exact = weight.float()
        scale = exact.abs().amax(1) / _LARGEST
        if not scale.isfinite().all():
            raise ValueError("it holds a number that is not finite")
        steps = exact / torch.where(scale > 0, scale, 1)[:, None]
        return cls(steps.round_().clamp_(-_LARGEST, _LARGEST).to(torch.int8), scale)

    def exact(self) -> Tensor:
        """What it stands for, `[out, in]` float32."""
        return self.values.float() * self.scale[:, None]

    @property
    def shape(self) -> torch.Size:
        """`[out, in]`."""
        return self.values.shape

    def __getitem__(self, rows: slice) -> Int8Matrix:
        """Some of its rows."""
        return Int8Matrix(self.values[rows], self.scale[rows])


Matrix = Tensor | Int8Matrix
