"""Experts whose weights no compiled kernel reads: each is brought to float32 for every call.

So it is for a format without `addresses`, of which the project has none; for matrices of one layer in several formats;
and for rows in another dtype than that of the model. It is slow, and takes an expert's size in float32 meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.dtypes import widened
from faasmoe.experts.expert import ExpertForm, ExpertWeights
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.fused import FusedExperts
from faasmoe.experts.payload import Request


class WidenedExperts:
    """The experts of a block. `dtype` (`F32`, `BF16`) is that in which the model computes."""

    def __init__(self, experts: Sequence[ExpertWeights], form: ExpertForm, dtype: str) -> None:
        self._experts, self._form, self._rounded = experts, form, dtype == "BF16"

    def forward(self, request: Request, sums: NDArray[np.float32]) -> None:
        """As `ExpertBlock.forward`, for rows in any dtype and a request that was checked."""
        rows = widened(request.rows if request.picked is None else request.rows[request.picked])
        for expert in np.unique(request.expert):
            its = request.expert == expert
            kernel = FusedExperts([_widened(self._experts[expert])], self._form, "F32", self._rounded)
            zeros = np.zeros(int(its.sum()), np.int32)
            row, weight = request.row[its], request.weight[its]
            kernel.forward(Request(layer=request.layer, rows=rows, row=row, expert=zeros, weight=weight), sums)


def _widened(expert: ExpertWeights) -> ExpertWeights:
    """The expert with all its numbers in float32."""
    return ExpertWeights(
        tuple(map(_matrix, expert.first)),
        _matrix(expert.down),
        tuple(map(_vector, expert.first_bias)),
        None if expert.down_bias is None else _vector(expert.down_bias),
    )


def _matrix(matrix: Matrix) -> NDArray[np.float32]:
    return np.ascontiguousarray(format_of(matrix).widened(matrix, slice(None)))


def _vector(vector: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(widened(vector))
