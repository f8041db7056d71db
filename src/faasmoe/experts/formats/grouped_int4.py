"""Weights in int4 with a float32 scale and a zero, a byte, for each group of 32, 64 or 128: 5.25 to 4.3 bits a weight.

AWQ, GPTQ and compressed-tensors publish such weights, each in an order of its own. They are converted to this one
without loss (`packed.conversion`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faasmoe.errors import CheckpointError
from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.by_group import GroupedFormat, GroupedMatrix, Shape
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.kernels.scales import Int4Groups

GROUPS = (32, 64, 128)
"""Columns that can share a scale and a zero."""


@dataclass(frozen=True, eq=False)
class GroupedInt4Matrix(GroupedMatrix):
    """A weight is its group's scale times (its code, from 0 to 15, less the group's zero, from 0 to 16).

    Codes lie two a byte, that of the even column in the lower half; scales are float32 `[out, in / columns]`.
    """

    format: ClassVar[str] = "grouped_int4"
    kernel_format = KernelFormat.GROUPED_INT4
    code_bits = 4
    group = GROUPS[0]

    zeros: NDArray[np.uint8]  # [out, in / columns]

    @staticmethod
    def shape_of(*parts: Shape) -> Shape:
        """See `GroupedMatrix`: codes `[..., out, in / 2]`, scales and zeros `[..., out, in / columns]`."""
        codes, scales, zeros = parts
        ins, groups = 2 * codes[-1], scales[-1]
        if len(codes) < 2 or codes[:-1] != scales[:-1] or scales != zeros or not fits(ins, groups):
            raise ValueError("not codes with their scales and zeros")
        return (*codes[:-1], ins)

    @classmethod
    def of(cls, *arrays: NDArray[Any]) -> GroupedInt4Matrix:
        """See `GroupedMatrix`."""
        return cls(*arrays)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """See `GroupedMatrix`."""
        return (self.codes, self.scales, self.zeros)

    @property
    def columns(self) -> int:
        """Consecutive weights of a row that share a scale and a zero."""
        return self.shape[1] // int(self.scales.shape[1])

    def exact(self) -> NDArray[np.float32]:
        """See `GroupedMatrix`."""
        codes = np.stack([self.codes & 15, self.codes >> 4], axis=-1).view(np.int8)
        differences = codes.reshape(len(codes), -1, self.columns) - self.zeros.view(np.int8)[:, :, None]
        exact: NDArray[np.float32] = differences * self.scales[:, :, None]
        return exact.reshape(self.shape)

    def __getitem__(self, rows: slice) -> GroupedInt4Matrix:
        """Some of its rows."""
        return GroupedInt4Matrix(self.codes[rows], self.scales[rows], self.zeros[rows])

    def scales_in_memory(self) -> bool:
        """See `GroupedMatrix`."""
        return (
            in_memory(self.scales, "F32")
            and in_memory(self.zeros, "U8")
            and self.scales.shape == self.zeros.shape
            and self.scales.ndim == 2
            and len(self.scales) == len(self.codes)
            and fits(self.shape[1], self.scales.shape[1])
        )

    @cached_property
    def kernel_scales(self) -> Int4Groups:
        """See `GroupedMatrix`."""
        return Int4Groups(address(self.scales), address(self.zeros), self.columns)


def fits(ins: int, groups: int) -> bool:
    """Whether rows of `ins` weights are so many groups of a size that kernels read."""
    return groups > 0 and ins % groups == 0 and ins // groups in GROUPS


class GroupedInt4Format(GroupedFormat):
    """A weight is three tensors: uint8 codes `[..., out, in / 2]`, float32 scales and uint8 zeros by group."""

    name = GroupedInt4Matrix.format
    dtypes = (("U8",), ("F32",), ("U8",))

    @staticmethod
    def groups(ins: int, groups: int, file: Path) -> int:
        """How many groups rows of `ins` weights have when those of `file`, `groups` a row, become several alike.

        Raises `CheckpointError` if kernels read no groups of such a size.
        """
        if groups == 0 or ins % groups or ins // groups % GROUPS[0]:
            raise CheckpointError(
                f"{file}: {groups} groups in {ins} columns: must be whole multiples of {GROUPS[0]} columns"
            )
        return ins // max(size for size in GROUPS if ins // groups % size == 0)


FORMAT = GroupedInt4Format(GroupedInt4Matrix)
