"""Linear layers over any number of rows, with weights in bfloat16, in eight bits or in four (`c/linear/matvec.c`).

A row's result has the same bits whatever rows come with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import addresses, format_of
from faasmoe.experts.kernels.library import BOOL, LIBRARY, LINEAR_ROWS

_linear_rows = LIBRARY.function("linear_rows", *LINEAR_ROWS, result=BOOL)


def readable(weight: Matrix) -> bool:
    """Whether the kernels can read a matrix: bfloat16, int8 or int4 in memory, contiguous rows."""
    return addresses(weight) is not None


def readable_bias(bias: Tensor | None, weight: Matrix) -> bool:
    """Whether the kernels can add a bias: none, or bfloat16, one for each of the weight's rows."""
    return bias is None or (bias.dtype == torch.bfloat16 and bias.shape == weight.shape[:1])


def supports(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> bool:
    """Whether `linear_rows` takes them: x and bias in bfloat16, and a weight that is `readable`, so not transposed."""
    return (
        readable(weight)
        and x.dtype == torch.bfloat16
        and x.dim() == 2
        and x.shape[1] == weight.shape[1]
        and x.device.type == "cpu"
        and readable_bias(bias, weight)
    )


def linear_rows(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
    """`x` `[n, in]`, `weight` `[out, in]` and `bias` `[out]` to `[n, out]`, all bfloat16 but for a quantised weight.

    Sums are float32 and rounded once, after the bias was added. The weight may be a read-only map. Runs on the
    calling thread alone, without Python's lock. Raises `ValueError` for what `supports` refuses.
    """
    read = addresses(weight)
    if read is None or not supports(x, weight, bias):
        raise ValueError(
            f"no kernel for {x.dtype} {tuple(x.shape)} by {format_of(weight).name} {tuple(weight.shape)}"
        )
    x, bias = x.contiguous(), None if bias is None else bias.contiguous()
    y = torch.empty(len(x), weight.shape[0], dtype=torch.bfloat16)
    if not _linear_rows(
        address(x), *read, address(bias) if bias is not None else 0, address(y), len(x), *weight.shape
    ):
        raise MemoryError(f"{len(x)} rows of {weight.shape[1]} numbers")
    return y
