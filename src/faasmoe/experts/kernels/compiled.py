"""The basis of all compiled code: compilation, addresses, and bfloat16, which numpy does not have.

A bfloat16 is the upper half of a float32, so compiled code sees its bits, as uint16.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from faasmoe.experts.kernels.cache import KernelCache

_BYTE = ir.IntType(8)

KERNELS = KernelCache.open()
if KERNELS.folder:
    numba.config.CACHE_DIR = str(KERNELS.folder)  # numba asks for it when a function is decorated


def compiled(function: Any, **options: Any) -> Any:
    """Compile at the first call, and keep the code if there is a folder for it (`kernel_cache`)."""
    return njit(nogil=True, cache=KERNELS.folder is not None, **options)(function)


reordering = partial(compiled, fastmath={"reassoc", "contract", "nsz"})
"""As `compiled`, but sums may be reordered to fit vectors: the same way in every call."""


@intrinsic
def pointer(_context: Any, address: Any) -> Any:
    """In compiled code: an address as a pointer, for `carray`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _BYTE.as_pointer())

    return types.voidptr(types.intp), generate


def widen(value: Any) -> Any:
    """In compiled code: a float32, or the bits of a bfloat16, as float32."""
    raise NotImplementedError


@overload(widen, strict=False)  # not strict: only annotations differ
def _widen_by_type(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << 16).view(np.float32)
    return lambda value: value


@compiled
def narrow(value: Any) -> Any:
    """In compiled code: a float32 as the bits of a bfloat16, to nearest, ties to even."""
    bits = np.float32(value).view(np.uint32)
    if bits & 0x7FFFFFFF > 0x7F800000:  # a nan, whose bits the rounding could carry into an infinity
        return np.uint16(0x7FC0)
    return np.uint16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


def like(value: Any, kind: Any) -> Any:
    """In compiled code: a float32 as an element of an array like `kind`, of float32 or of the bits of bfloat16."""
    raise NotImplementedError


@overload(like, strict=False)
def _like_by_type(value: Any, kind: Any) -> Any:
    if kind.dtype == types.uint16:
        return lambda value, kind: narrow(value)
    return lambda value, kind: value
