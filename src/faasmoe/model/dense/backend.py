"""Products of the dense part's linear layers: by our kernels, or by torch with or without oneDNN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from faasmoe.experts.dtypes import widened
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import format_of
from faasmoe.model.dense import matvec
from faasmoe.model.tensors import as_array

_MATRIX_ROWS = 32  # from so many on a processor that multiplies matrices is worth bringing weights into its order


@cache
def _multiplies_matrices() -> bool:
    """Whether the CPU has instructions for products of matrices in bfloat16, which oneDNN uses and we do not."""
    return torch.cpu._is_amx_tile_supported()


def own_kernel(rows: int, weight: Matrix) -> bool:
    """Whether `matvec` is the fastest for `rows` rows in bfloat16 (`python -m benchmarks.linear`).

    Without instructions for matrices it is for any number, with AVX-512's for bfloat16 as well: oneDNN first brings
    weights into an order of its own, which takes longer than reading them, and memory. With them oneDNN is taken
    from `_MATRIX_ROWS` rows up, which no machine at hand could measure, but not for a quantised weight, which torch
    does not read.
    """
    return rows < _MATRIX_ROWS or not isinstance(weight, Tensor) or not _multiplies_matrices()


@contextmanager
def linear_backend(rows: int) -> Iterator[None]:
    """In this context torch's linear layers use the faster kernel for `rows` rows.

    For one row torch's own dot kernel reads weights half as fast again as oneDNN on one server with AVX-512, and a
    sixth slower on another, with arithmetic in bfloat16; from two rows up oneDNN wins (`python -m benchmarks.linear`).
    Only layers that our kernels do not take come here, so one rule does.
    """
    if rows != 1:
        yield
        return
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


def linear(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """`x` `[n, in]`, `weight` `[out, in]` and `bias` `[out]` to `[n, out]` in `x`'s dtype.

    Raises `RuntimeError` or `ValueError` for operands that do not go together.
    """
    if own_kernel(len(x), weight) and matvec.supports(x, weight, bias):
        return matvec.linear_rows(x, weight, bias)
    if isinstance(weight, Tensor):
        with linear_backend(len(x)):
            return F.linear(x, weight, bias)
    y = torch.from_numpy(format_of(weight).products(widened(as_array(x)), weight))
    return (y if bias is None else y + bias).to(x.dtype)
