"""What formats with packed codes have in common: where a weight's arrays lie, and its conversion to `grouped_int4`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faasmoe.errors import CheckpointError
from faasmoe.experts.formats.base import MatrixLocation, QuantisedMatrix, WeightFormat
from faasmoe.experts.formats.grouped_int4 import FORMAT as GROUPED_INT4
from faasmoe.experts.formats.grouped_int4 import GroupedInt4Matrix
from faasmoe.experts.mapping import TensorLocation, map_array

BITS = 4  # of a code


@dataclass(frozen=True, slots=True)
class PackedLocation:
    """The location of a weight with packed codes. Loaded, it is a matrix in `grouped_int4`."""

    its: PackedFormat
    parts: tuple[TensorLocation, ...]
    shape: tuple[int, ...]
    groups: int  # of a row

    @property
    def format(self) -> str:
        """See `MatrixLocation`."""
        return self.its.name

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return sum(part.nbytes for part in self.parts)

    def memory(self, width: int) -> int:
        """See `MatrixLocation`: of codes, float32 scales and zeros."""
        outs, ins = self.shape
        return outs * (ins // 2 + 5 * self.groups)

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> GroupedInt4Matrix:
        """See `MatrixLocation`. Raises `CheckpointError` for what kernels cannot read."""
        try:
            return self.its.unpacked([map_array(part, read_ahead) for part in self.parts])
        except ValueError as error:
            raise CheckpointError(
                f"{self.parts[0].file}: a weight in {self.format} cannot be read: {error}"
            ) from error


class PackedFormat(WeightFormat):
    """A format whose weights are several arrays `prefix + ending` for each plain weight `prefix + "weight"`."""

    kept_as = GROUPED_INT4.name
    endings: ClassVar[tuple[str, ...]]
    """Of the arrays that each weight has, codes first and scales second."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Of those that it may have."""

    @abstractmethod
    def shape_of(self, codes: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, int, int]:
        """Outs, ins and groups of a weight whose arrays have these shapes `[n, m]`."""

    @abstractmethod
    def unpacked(self, arrays: Sequence[NDArray[Any]]) -> GroupedInt4Matrix:
        """The weight of its arrays, in order. Raises `ValueError` for arrays that make up none that kernels read."""

    def found(
        self, tensors: Mapping[str, TensorLocation], settings: Mapping[str, Any]
    ) -> Mapping[str, Sequence[str]]:
        """See `WeightFormat`."""
        weights: dict[str, Sequence[str]] = {}
        for array, location in tensors.items():
            prefix = array.removesuffix(self.endings[0])
            arrays = [prefix + ending for ending in self.endings]
            if (
                array.endswith(self.endings[0])
                and location.dtype == "I32"
                and all(one in tensors for one in arrays)
            ):
                more = [prefix + ending for ending in self.optional if prefix + ending in tensors]
                weights[f"{prefix}weight"] = [*arrays, *more]
        return weights

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`. Raises `CheckpointError` for arrays that make up no weight of the format."""
        codes, scales, *_ = parts
        if len(codes.shape) != 2 or len(scales.shape) != 2:
            shapes = ", ".join(str(list(part.shape)) for part in parts)
            raise CheckpointError(f"{codes.file}: arrays of the shapes {shapes} are no weight in {self.name}")
        outs, ins, groups = self.shape_of(codes.shape, scales.shape)
        return PackedLocation(self, tuple(parts), (outs, ins), groups)

    def kept(self, name: str, location: MatrixLocation) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `WeightFormat`. Raises `CheckpointError` for groups that kernels cannot read."""
        if not isinstance(location, PackedLocation):
            raise TypeError(f"a location in {location.format}")
        outs, ins = location.shape
        scales = (outs, GROUPED_INT4.groups(ins, location.groups, location.parts[0].file))
        return {
            name: ("U8", (outs, ins // 2)),
            f"{name}.scales": ("F32", scales),
            f"{name}.zeros": ("U8", scales),
        }

    def arrays(self, matrix: QuantisedMatrix) -> tuple[NDArray[Any], ...]:
        """See `WeightFormat`."""
        return GROUPED_INT4.arrays(matrix)  # type: ignore[arg-type]

    def widened(self, matrix: QuantisedMatrix, rows: slice) -> NDArray[np.float32]:
        """See `WeightFormat`."""
        return GROUPED_INT4.widened(matrix, rows)  # type: ignore[arg-type]
