"""Linear layers by numpy's BLAS, in float32, for weights that the compiled kernels do not read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts import dtypes
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import format_of

_PIECE = 1 << 17  # numbers of a weight that are widened at once: half a megabyte stays in the second cache


def linear(
    x: NDArray[np.float32], weight: Matrix, bias: NDArray[Any] | None = None, transposed: bool = False
) -> NDArray[np.float32]:
    """`x` `[n, in]` to `[n, out]`: x w^T + bias, rounded to nothing narrower. A row has the same bits in any company.

    `weight` is `[out, in]` in any format, or `[in, out]` if `transposed`; `bias` is `[out]`. No whole copy is made of
    the weight, whatever its format. Raises `ValueError` for an `x` of another width.
    """
    count, width = weight.shape
    format, at_once = format_of(weight), max(1, _PIECE // max(1, width))
    y = np.zeros((len(x), width if transposed else count), np.float32)
    for first in range(0, count, at_once):
        part = slice(first, first + at_once)
        piece = format.widened(weight, part)
        if transposed:
            y += _products(x[:, part], piece)
        else:
            y[:, part] = _products(x, piece.T)
    return y if bias is None else y + dtypes.widened(bias)


def _products(x: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """`x` `[n, in]` by `[in, out]`, a vector at a time: BLAS sums in another order where it takes several together."""
    products: NDArray[np.float32] = np.matmul(x[:, None], matrix)[:, 0]
    return products
