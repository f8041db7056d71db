"""Linear layers over any number of rows, with weights in any `KernelFormat` (`c/linear/matvec.c`).

A row's result has the same bits whatever rows come with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import addresses, format_of
from faasmoe.experts.kernels.library import BOOL, LIBRARY, LINEAR_ROWS
from faasmoe.model.tensors import DTYPES, NAME_OF

_linear_rows = LIBRARY.function("linear_rows", *LINEAR_ROWS, result=BOOL)


def readable(weight: Matrix) -> bool:
    """Whether the kernels can read a matrix: whether its format has `addresses` for it."""
    return addresses(weight) is not None


def row_dtype(weight: Matrix) -> torch.dtype:
    """Of rows, bias and results of a `readable` matrix: float32 for one in float32, else bfloat16."""
    found = addresses(weight)
    return torch.bfloat16 if found is None else DTYPES[found.format.rows]


def readable_bias(bias: Tensor | None, weight: Matrix, dtype: torch.dtype) -> bool:
    """Whether the kernels can add a bias to results in `dtype`: none, or one for each of the weight's rows."""
    return bias is None or (bias.dtype == dtype and bias.shape == weight.shape[:1])


def supports(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> bool:
    """Whether `linear_rows` takes them: x and bias in float32 or bfloat16, and a weight that is `readable` for them."""
    return (
        addresses(weight, NAME_OF.get(x.dtype, "")) is not None
        and x.dim() == 2
        and x.shape[1] == weight.shape[1]
        and x.device.type == "cpu"
        and readable_bias(bias, weight, x.dtype)
    )


def linear_rows(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
    """`x` `[n, in]`, `weight` `[out, in]` and `bias` `[out]` to `[n, out]` in the dtype of `x`, which `bias` has too.

    For `x` in bfloat16 the weight is bfloat16 or quantised, for `x` in float32 any plain one of at most 32 bits. Sums
    are float32 and rounded once, after the bias was added. The weight may be a read-only map. Runs on the calling
    thread alone, without Python's lock. Raises `ValueError` for what `supports` refuses.
    """
    read = addresses(weight, NAME_OF.get(x.dtype, ""))
    if read is None or not supports(x, weight, bias):
        raise ValueError(
            f"no kernel for {x.dtype} {tuple(x.shape)} by {format_of(weight).name} {tuple(weight.shape)}"
        )
    x, bias = x.contiguous(), None if bias is None else bias.contiguous()
    y = torch.empty(len(x), weight.shape[0], dtype=x.dtype)
    if not _linear_rows(
        address(x), *read, address(bias) if bias is not None else 0, address(y), len(x), *weight.shape
    ):
        raise MemoryError(f"{len(x)} rows of {weight.shape[1]} numbers")
    return y
