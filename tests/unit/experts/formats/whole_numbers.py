"""What kernels for weights with whole numbers as their codes make of rows of x (`c/formats/whole.h`)."""

from __future__ import annotations

import torch

SPAN = 256  # columns that share a scale


def in_whole_numbers(x: torch.Tensor) -> torch.Tensor:
    """The rows `[n, in]`, finite, with each span rounded to a power of two of which its numbers are below 2^15."""
    padded = torch.nn.functional.pad(x.double(), (0, -x.shape[1] % SPAN))
    spans = padded.view(len(x), padded.shape[1] // SPAN, SPAN)
    most = spans.abs().amax(2, keepdim=True)
    step = 2.0 ** (most.frexp().exponent - 15)
    rounded = torch.where(most < 2**-100, 0, (spans / step).round() * step)
    return rounded.view(padded.shape)[:, : x.shape[1]]
