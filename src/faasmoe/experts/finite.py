"""A check that all numbers of an array are finite: no NaN, no infinity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, BOOL, INT, LIBRARY

_all_finite = LIBRARY.function("all_finite", ADDRESS, INT, result=BOOL)


def all_finite(sums: NDArray[np.float32]) -> bool:
    """For an array without gaps. Looks at bits: large finite numbers do not overflow into a false alarm.

    Raises `TypeError` for an array with gaps.
    """
    if not sums.flags.c_contiguous:
        raise TypeError(f"an array of shape {sums.shape} that is not C contiguous")
    finite: bool = _all_finite(address(sums), sums.size)
    return finite
