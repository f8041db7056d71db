"""Arrays as compiled kernels take them: by their addresses, whether numpy holds them or torch.

A function's arrays are numpy's. The dense part's are torch's, which nothing here imports.
"""

from __future__ import annotations

import ctypes
from typing import Any

from faasmoe.experts.dtypes import BY_NAME

_view, _address_of = (ctypes.c_char * 0).from_buffer, ctypes.addressof  # looked up once: `address` is called often
_TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8"}  # the names that torch prints


def address(array: Any) -> int:
    """Where an array's first number lies. Whoever has it keeps the array alive."""
    tensor = getattr(array, "data_ptr", None)
    if tensor is not None:
        return int(tensor())
    try:
        return _address_of(_view(array))  # in a quarter of the time that `array.ctypes` takes
    except TypeError:  # read-only, or with gaps
        return int(array.__array_interface__["data"][0])


def in_memory(array: Any, dtype: str) -> bool:
    """Whether kernels can read an array: of this dtype (`F32`, `F16`, `BF16`, `I8`), row after row, not on a device."""
    if hasattr(array, "data_ptr"):
        return (
            str(array.dtype).rpartition(".")[2] == _TORCH[dtype]
            and array.is_contiguous()
            and array.device.type == "cpu"
        )
    return bool(array.dtype == BY_NAME[dtype] and array.flags.c_contiguous)
