"""What formats have in common whose weights are codes with a scale for each group, read in place from published files.

Codes lie row by row without anything between them, and scales in an array of their own.
"""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from faasmoe.errors import CheckpointError
from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.base import Addresses, MatrixLocation, WeightFormat
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.kernels.scales import Scales
from faasmoe.experts.mapping import TensorLocation, map_array

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class GroupedMatrix:
    """A weight `[out, in]` as codes and scales by group."""

    format: ClassVar[str]
    kernel_format: ClassVar[KernelFormat]
    code_bits: ClassVar[int]
    group: ClassVar[int]  # columns; kernels read rows of whole groups

    codes: NDArray[np.uint8]  # [out, in * code_bits / 8]
    scales: NDArray[Any]  # rows of scales

    @staticmethod
    @abstractmethod
    def shape_of(*parts: Shape) -> Shape:
        """The shape `[..., out, in]` of a weight whose arrays have the shapes `parts` in files.

        Raises `ValueError` for arrays that do not go together.
        """

    @classmethod
    @abstractmethod
    def of(cls, *arrays: NDArray[Any]) -> Self:
        """The matrix of the arrays of a file, whose shapes `shape_of` takes."""

    @abstractmethod
    def exact(self) -> NDArray[np.float32]:
        """The weight that the matrix represents, `[out, in]`."""

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Codes and scales, in the order of `of`."""
        return (self.codes, self.scales)

    @property
    def shape(self) -> tuple[int, int]:
        """`[out, in]`."""
        return len(self.codes), self.codes.shape[1] * 8 // self.code_bits

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return sum(array.nbytes for array in self.arrays)

    @abstractmethod
    def __getitem__(self, rows: slice) -> Self:
        """Some of its rows."""

    def scales_in_memory(self) -> bool:
        """Whether kernels can read the scales: of the right dtype and shape, row after row."""
        return in_memory(self.scales, "U8") and self.scales.shape == (len(self.codes), self.shape[1] // self.group)

    @cached_property
    def kernel_scales(self) -> ctypes.Structure:
        """Where kernels find the scales. The matrix keeps it alive."""
        return Scales(address(self.scales), self.scales.strides[0], 1, 0, 1.0)


@dataclass(frozen=True, slots=True)
class GroupedLocation:
    """The location of a weight as codes and scales by group."""

    matrix: type[GroupedMatrix]
    parts: tuple[TensorLocation, ...]
    shape: Shape

    @property
    def format(self) -> str:
        """See `MatrixLocation`."""
        return self.matrix.format

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return sum(part.nbytes for part in self.parts)

    def memory(self, width: int) -> int:
        """See `MatrixLocation`: weights stay as they are in a model of any dtype."""
        return self.nbytes

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> GroupedMatrix:
        """See `MatrixLocation`."""
        return self.matrix.of(*(map_array(part, read_ahead) for part in self.parts))


class GroupedFormat(WeightFormat):
    """A format whose weights are those of one class of `GroupedMatrix`.

    They are recognised by the names of their arrays: that of a plain weight and an ending.
    """

    block_kernel = "faasmoe.experts.fused:FusedExperts"
    dtypes: ClassVar[tuple[tuple[str, ...], ...]]
    """Those that each array may have in files."""
    endings: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Those that the name of each array may have, behind the name of the weight; none: no checkpoint has the format."""

    def __init__(self, matrix: type[GroupedMatrix]) -> None:
        self._matrix = matrix

    def found(
        self, tensors: Mapping[str, TensorLocation], settings: Mapping[str, Any]
    ) -> Mapping[str, Sequence[str]]:
        """See `WeightFormat`."""
        weights: dict[str, Sequence[str]] = {}
        for array in tensors if self.endings else ():
            first, *others = self.endings
            for ending in (end for end in first if array.endswith(end)):
                name = array.removesuffix(ending)
                named = [[name + end for end in ends if name + end in tensors] for ends in others]
                if tensors[array].dtype in self.dtypes[0] and all(named):
                    weights[name] = [array, *(arrays[0] for arrays in named)]
        return weights

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`. Raises `CheckpointError` for arrays that make up no weight of the format."""
        shapes = [part.shape for part in parts]
        if len(parts) != len(self.dtypes) or any(
            part.dtype not in dtypes for part, dtypes in zip(parts, self.dtypes, strict=True)
        ):
            raise CheckpointError(
                f"arrays of {', '.join(part.dtype for part in parts)} are no weight in {self.name}"
            )
        try:
            return GroupedLocation(self._matrix, tuple(parts), self._matrix.shape_of(*shapes))
        except ValueError:
            raise CheckpointError(f"arrays of the shapes {shapes} are no weight in {self.name}") from None

    def arrays(self, matrix: GroupedMatrix) -> tuple[NDArray[Any], ...]:
        """See `WeightFormat`."""
        return matrix.arrays

    def addresses(self, matrix: GroupedMatrix) -> Addresses | None:
        """See `WeightFormat`: matrices in memory with contiguous rows of whole groups."""
        codes = matrix.codes
        if (
            in_memory(codes, "U8")
            and codes.ndim == 2
            and matrix.shape[1] % matrix.group == 0
            and matrix.scales_in_memory()
        ):
            return Addresses(address(codes), ctypes.addressof(matrix.kernel_scales), matrix.kernel_format)
        return None

    def widened(self, matrix: GroupedMatrix, rows: slice) -> NDArray[np.float32]:
        """See `WeightFormat`."""
        return matrix[rows].exact()
