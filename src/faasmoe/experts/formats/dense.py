"""Weights that are not quantised: arrays in float32, bfloat16, float16 or float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts import dtypes
from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.base import Addresses, Matrix, MatrixLocation, WeightFormat
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.mapping import TensorLocation

_KERNEL_FORMATS = {"BF16": KernelFormat.BFLOAT16, "F32": KernelFormat.FLOAT32, "F16": KernelFormat.FLOAT16}


class DenseFormat(WeightFormat):
    """A weight is one array, and a location the array's own."""

    name = TensorLocation.format
    dtypes = ("F64", "F32", "F16", "BF16")  # of a tensor in files
    block_kernel = "faasmoe.experts.fused:FusedExperts"

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`."""
        (tensor,) = parts
        return tensor

    def arrays(self, matrix: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """See `WeightFormat`."""
        return (matrix,)

    def addresses(self, matrix: Matrix) -> Addresses | None:
        """See `WeightFormat`: matrices in memory in float32, float16 or bfloat16, with contiguous rows."""
        if len(matrix.shape) == 2:
            for dtype, format in _KERNEL_FORMATS.items():
                if in_memory(matrix, dtype):
                    return Addresses(address(matrix), 0, format)
        return None

    def widened(self, matrix: NDArray[Any], rows: slice) -> NDArray[np.float32]:
        """See `WeightFormat`."""
        return dtypes.widened(matrix[rows])


FORMAT = DenseFormat()
