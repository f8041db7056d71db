"""Torch tensors and numpy arrays of the same bytes: functions compute with the one, the dense part with the other."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.experts.dtypes import BFLOAT16
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import DENSE, format_of
from faasmoe.experts.mapping import TensorLocation, map_array

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""By the names of `experts.dtypes`."""

_PIECE = 1 << 22  # numbers that are in memory in float32 at once

NAME_OF = {dtype: name for name, dtype in DTYPES.items()}


def map_tensor(location: TensorLocation) -> Tensor:
    """The tensor at `location`, sharing the file's pages. It must not be written to. Raises as `map_array` does."""
    return _shared(map_array(location)).view(DTYPES[location.dtype])


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor of the same memory; bits of bfloat16 are bfloat16. If the array is read-only, so is the tensor."""
    tensor = _shared(array)
    return tensor.view(torch.bfloat16) if array.dtype == BFLOAT16 else tensor


def widened_tensor(matrix: Matrix, dtype: torch.dtype) -> Tensor:
    """The numbers of a loaded weight of any format in `dtype`, a few rows at a time."""
    format = format_of(matrix)
    if format.name == DENSE.name:
        return as_tensor(*format.arrays(matrix)).to(dtype)
    outs, ins = matrix.shape
    found = torch.empty(outs, ins, dtype=dtype)
    at_once = max(1, _PIECE // ins)
    for first in range(0, outs, at_once):
        rows = slice(first, min(first + at_once, outs))
        found[rows] = as_tensor(format.widened(matrix, rows))
    return found


def as_array(tensor: Tensor) -> NDArray[Any]:
    """An array of the same memory, with bfloat16 as bits, of a tensor that is not on a device."""
    tensor = tensor.detach()
    array: NDArray[Any] = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _shared(array: NDArray[Any]) -> Tensor:
    with (
        warnings.catch_warnings()
    ):  # torch has no read-only tensors and says so; a write to a mapped file would fault
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
