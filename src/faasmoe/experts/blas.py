"""Products by numpy's BLAS in float32, for weights that no compiled kernel reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 17  # numbers of a weight that are widened at once: half a megabyte stays in the second cache

Rows = NDArray[np.float32]  # [n, width]


def products(x: Rows, shape: Sequence[int], widened: Callable[[slice], Rows], transposed: bool = False) -> Rows:
    """`x` `[n, in]` by a weight: `[n, out]`. A row has the same bits in any company.

    The weight has the `shape` `[out, in]`, or `[in, out]` if `transposed`; `widened` gives some of its rows, so that
    no whole copy is made of it. Raises `ValueError` for an `x` of another width.
    """
    count, width = shape
    at_once = max(1, _PIECE // max(1, width))
    y = np.zeros((len(x), width if transposed else count), np.float32)
    for first in range(0, count, at_once):
        part = slice(first, first + at_once)
        if transposed:
            y += _one_by_one(x[:, part], widened(part))
        else:
            y[:, part] = _one_by_one(x, widened(part).T)
    return y


def _one_by_one(x: Rows, matrix: Rows) -> Rows:
    """`x` `[n, in]` by `[in, out]`, a row at a time: BLAS sums in another order where it takes several together."""
    y: Rows = np.matmul(x[:, None], matrix)[:, 0]
    return y
