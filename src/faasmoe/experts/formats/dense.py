"""Weights that are not quantised: tensors in float32, bfloat16, float16 or float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from faasmoe.experts.formats.base import MULTIPLE, Addresses, MatrixLocation, WeightFormat
from faasmoe.experts.mapping import TensorLocation


class DenseFormat(WeightFormat):
    """A weight is one tensor, and a location the tensor's own."""

    name = TensorLocation.format
    dtypes = ("F64", "F32", "F16", "BF16")  # of a tensor in files
    block_kernel = "faasmoe.experts.kernels.fused:FusedExperts"

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`."""
        (tensor,) = parts
        return tensor

    def arrays(self, matrix: Tensor) -> tuple[Tensor, ...]:
        """See `WeightFormat`."""
        return (matrix,)

    def addresses(self, matrix: Tensor) -> Addresses | None:
        """Bfloat16 in memory, columns a multiple of `MULTIPLE`, rows contiguous."""
        if (
            matrix.dtype == torch.bfloat16
            and matrix.dim() == 2
            and matrix.shape[1] % MULTIPLE == 0
            and matrix.is_contiguous()
            and matrix.device.type == "cpu"
        ):
            return Addresses(matrix.data_ptr(), 0)
        return None

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        """See `WeightFormat`."""
        with linear_backend(len(x)):
            return F.linear(x, weight.t() if transposed else weight, bias)


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


FORMAT = DenseFormat()
