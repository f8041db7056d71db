"""A weight format that nothing in the project knows: float16 with a float32 scale for each row.

A checkpoint holds a weight `NAME` of the format as `NAME` and `NAME.rows`; its config may call it half_rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.dtypes import widened
from faasmoe.experts.formats.base import MatrixLocation, WeightFormat
from faasmoe.experts.mapping import TensorLocation, map_array


@dataclass(frozen=True, slots=True)
class HalfMatrix:
    format: ClassVar[str] = "half_rows"
    values: NDArray[np.float16]  # [out, in]
    scale: NDArray[np.float32]  # [out]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes

    def __getitem__(self, rows: slice) -> HalfMatrix:
        return HalfMatrix(self.values[rows], self.scale[rows])

    def exact(self) -> NDArray[np.float32]:
        return self.values * self.scale[:, None]


@dataclass(frozen=True, slots=True)
class HalfLocation:
    format: ClassVar[str] = "half_rows"
    values: TensorLocation
    scale: TensorLocation

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def parts(self) -> tuple[TensorLocation, ...]:
        return (self.values, self.scale)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes

    def memory(self, width: int) -> int:
        return self.nbytes

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> HalfMatrix:
        return HalfMatrix(map_array(self.values, read_ahead), map_array(self.scale, read_ahead))


class HalfFormat(WeightFormat):
    name = HalfMatrix.format

    def declared(self, settings: Mapping[str, Any]) -> bool:
        return settings.get("quant_method") == self.name

    def found(
        self, tensors: Mapping[str, TensorLocation], settings: Mapping[str, Any]
    ) -> Mapping[str, Sequence[str]]:
        pairs = {name: (name, f"{name}.rows") for name in tensors if f"{name}.rows" in tensors}
        return {name: arrays for name, arrays in pairs.items() if tensors[name].dtype == "F16"}

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        return HalfLocation(*parts)

    def arrays(self, matrix: HalfMatrix) -> tuple[NDArray[Any], ...]:
        return (matrix.values, matrix.scale)

    def converted(self, name: str, shape: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {name: ("F16", shape), f"{name}.rows": ("F32", shape[:1])}

    def convert(self, weight: NDArray[Any]) -> HalfMatrix:
        exact = widened(weight)
        scale = np.abs(exact).max(1)
        return HalfMatrix((exact / scale[:, None]).astype(np.float16), scale)

    def widened(self, matrix: HalfMatrix, rows: slice) -> NDArray[np.float32]:
        return matrix[rows].exact()


FORMAT = HalfFormat()
