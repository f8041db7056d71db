"""Weights in int4 with a bfloat16 scale for each group of 32: 4.5 bits a weight.

The codes lie in the order in which the kernels read them (`kernels/c/int4.h`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.experts.formats.base import MatrixLocation, WeightFormat
from faasmoe.experts.mapping import TensorLocation, map_tensor

GROUP = 32  # consecutive weights of a row that share a scale


@dataclass(frozen=True, slots=True)
class Int4Matrix:
    """A weight `[out, in]`: the weights of a group are its scale times whole numbers from -8 to 7."""

    format: ClassVar[str] = "int4"

    codes: NDArray[np.uint8]  # [out, in / 2]
    scales: NDArray[np.uint16]  # bits of bfloat16 [out, in / 32]

    @classmethod
    def nearest(cls, weight: NDArray[np.float32]) -> Int4Matrix:
        """The one with nearly the least squared error in each group of `weight` `[out, in]`.

        Raises `ValueError` for a weight that is not finite, or whose rows are no whole groups.
        """
        return cls(*_kernels().converted(weight))

    def exact(self) -> NDArray[np.float32]:
        """The weight that the matrix represents, `[out, in]`."""
        exact: NDArray[np.float32] = _kernels().widened(self.codes, self.scales)
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
    scales: TensorLocation  # BF16 [out, in / 32]

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

    def map(self, dtype: torch.dtype | None = None, read_ahead: bool = False) -> Int4Matrix:
        """See `MatrixLocation`."""
        codes, scales = map_tensor(self.codes, read_ahead), map_tensor(self.scales, read_ahead)
        return Int4Matrix(codes.numpy(), _bits(scales))


class Int4Format(WeightFormat):
    """A weight is two tensors: `NAME` uint8 `[out, in / 2]` and `NAME.scale` bfloat16 `[out, in / 32]`.

    Only our own copies of checkpoints hold such weights, so none are recognised in a checkpoint.
    """

    name = Int4Matrix.format
    multiple = GROUP

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`."""
        return Int4Location(*parts)

    def arrays(self, matrix: Int4Matrix) -> tuple[Tensor, ...]:
        """See `WeightFormat`."""
        return (torch.from_numpy(matrix.codes), torch.from_numpy(matrix.scales).view(torch.bfloat16))

    def converted(self, name: str, shape: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `WeightFormat`."""
        outs, ins = shape
        return {name: ("U8", (outs, ins // 2)), f"{name}.scale": ("BF16", (outs, ins // GROUP))}

    def convert(self, weight: Tensor) -> Int4Matrix:
        """See `WeightFormat`."""
        return Int4Matrix.nearest(weight.float().numpy())

    def linear(self, x: Tensor, weight: Any, bias: Tensor | None, transposed: bool) -> Tensor:
        """For rows in bfloat16. Sums are float32 and rounded once, after the bias was added."""
        if x.dtype != torch.bfloat16 or transposed:
            raise ValueError(f"int4 weights are for rows in bfloat16, not {x.dtype}, and are not transposed")
        y = torch.from_numpy(_kernels().products(_bits(x), weight.codes, weight.scales))
        return (y if bias is None else y + bias).bfloat16()


def _kernels() -> Any:
    """`kernels.int4`. Kernels import formats, so formats look kernels up by name, as for `block_kernel`."""
    return import_module("faasmoe.experts.kernels.int4")


def _bits(numbers: Tensor) -> NDArray[np.uint16]:
    bits: NDArray[np.uint16] = numbers.view(torch.uint16).numpy()
    return bits


FORMAT = Int4Format()
