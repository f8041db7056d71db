"""Which positions a layer may see, asked of the model once, when it is loaded.

Models say it with a mask. A mask over the flat row would be wrong, so the model makes masks in the probe by a function
that answers with the width of the window instead, and the attention notes it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

NO_WINDOW = -1  # the mask of a layer that sees something else than a window of the past


def window_mask(mask_function: Callable[..., Any], **_: Any) -> Tensor:
    """Stands in for a mask in the probe: the width of the window as int64 of a mask's dimensions, `[1, 1, 1, 1]`.

    0 means all positions before a token, less than `NO_WINDOW` those of a chunk of so many positions (in the first,
    all before a token), and `NO_WINDOW` another mask (an error if a layer uses it).
    """
    _without_padding(mask_function)
    return torch.tensor(_window_width(mask_function), device="cpu").view(1, 1, 1, 1)


def _without_padding(mask_function: Callable[..., Any]) -> None:
    """Have masks of chunks know in a rehearsal, which has no numbers, that no position is padded."""
    held = [cell.cell_contents for cell in mask_function.__closure__ or ()]
    for inner in (each for value in held for each in (value if isinstance(value, tuple) else (value,))):
        if isinstance(inner, FunctionType):
            _without_padding(inner)
    for cell, value in zip(mask_function.__closure__ or (), held, strict=True):
        if isinstance(value, Tensor) and value.is_meta:
            cell.cell_contents = torch.zeros(value.shape, dtype=value.dtype, device="cpu")


def _window_width(mask_function: Callable[..., Any]) -> int:
    far = 1 << 24  # a position beyond any context

    def sees(query: int, key: int) -> bool:
        zero = torch.tensor(0, device="cpu")
        return bool(mask_function(zero, zero, torch.tensor(query, device="cpu"), torch.tensor(key, device="cpu")))

    if sees(far, far + 1) or not sees(far, far):
        return NO_WINDOW
    if sees(far, 0):
        return 0
    if (chunk := _chunk(sees, far)) > 1:
        return -chunk
    seen, hidden = 0, far  # distances back
    while hidden - seen > 1:
        middle = (seen + hidden) // 2
        seen, hidden = (middle, hidden) if sees(far, far - middle) else (seen, middle)
    for query in (far + 1, far + hidden - 1, 2 * far - 1):  # chunks, unlike windows, do not move along
        if not sees(query, query - seen) or sees(query, query - hidden):
            return NO_WINDOW
    return hidden


def _chunk(sees: Callable[[int, int], bool], far: int) -> int:
    """The size of chunks of positions of which each sees none before its own; 0 if there are none."""
    seen, hidden = 0, far  # positions that see the first one, and that do not
    while hidden - seen > 1:
        middle = (seen + hidden) // 2
        seen, hidden = (middle, hidden) if sees(middle, 0) else (seen, middle)
    for start in (hidden, 2 * hidden):
        last = start + hidden - 1
        if sees(start, start - 1) or not sees(last, start) or sees(last, last + 1):
            return 0
    return hidden
