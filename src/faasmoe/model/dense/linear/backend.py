"""Products of the dense part's linear layers: by our kernels, or by torch with or without oneDNN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.kernels.choice import Choice
from faasmoe.model.dense.linear import matvec

_PIECE = 1 << 17  # numbers of a weight that are widened at once: half a megabyte stays in the second cache
_ONEDNN_ROWS = Choice.here().onednn_rows


def own_kernel(rows: int, weight: Matrix) -> bool:
    """Whether `matvec` multiplies `rows` rows by `weight`, and not torch's oneDNN.

    oneDNN takes many rows where it was measured to be much faster, as with instructions for matrices (`faasmoe
    kernels`), but for weights in bfloat16 alone, with which it was measured.
    """
    plain = isinstance(weight, Tensor) and weight.dtype == torch.bfloat16
    return _ONEDNN_ROWS is None or rows < _ONEDNN_ROWS or not plain


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
    return _widened(x, weight, bias)


def _widened(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """For a weight that no compiled kernel reads. A row has the same bits in any company."""
    format, (count, width) = format_of(weight), weight.shape
    at_once = max(1, _PIECE // max(1, width))
    rows, parts = x.float(), []
    for first in range(0, count, at_once):
        piece = torch.from_numpy(np.ascontiguousarray(format.widened(weight, slice(first, first + at_once))))
        parts.append(matvec.linear_rows(rows, piece))
    y = torch.cat(parts, 1)
    return (y if bias is None else y + bias).to(x.dtype)
