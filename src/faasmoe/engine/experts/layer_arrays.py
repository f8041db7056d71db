"""The tensors of a layer as kernels read them.

To turn a tensor into an array takes as long as to group what is in it, and Python that runs between layers is in no
cache. A step from a list gives the same tensors each time, with other numbers, so their arrays are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.engine.experts.grouping import room_for_sums
from faasmoe.model.tensors import as_array

_MOST_BYTES = 256 << 10  # of rows that are kept: those of the longest step from a list


@dataclass(slots=True, kw_only=True)
class LayerArrays:
    """What a layer is given, and memory for what it returns."""

    tensors: tuple[Tensor, Tensor, Tensor]  # whose memory it is
    lines: NDArray[Any]  # uint8 [T, bytes]: `hidden`
    rows: memoryview  # the same bytes
    index: NDArray[Any]  # [T, K]
    weight: NDArray[Any]  # [T, K], float32 or bits of bfloat16
    total: Tensor  # [T, H]


class ArraysByLayer:
    """Those of each layer. For one thread."""

    def __init__(self) -> None:
        self._kept: dict[int, LayerArrays] = {}

    def of(self, layer: int, hidden: Tensor, index: Tensor, weight: Tensor) -> LayerArrays:
        """`hidden` `[T, H]`, `index` and `weight` `[T, K]` of a layer, whose `total` is valid until the next call."""
        kept = self._kept.get(layer)
        if kept is not None:
            its_hidden, its_index, its_weight = kept.tensors
            if its_hidden is hidden and its_index is index and its_weight is weight:
                return kept
        known = weight.dtype in (torch.float32, torch.bfloat16)
        read = hidden.contiguous(), index.contiguous(), (weight if known else weight.float()).contiguous()
        lines = read[0].view(torch.uint8).numpy()
        arrays = LayerArrays(
            tensors=(hidden, index, weight),
            lines=lines,
            rows=lines.reshape(-1).data,
            index=read[1].numpy(),
            weight=as_array(read[2]),
            total=room_for_sums(hidden),
        )
        in_place = all(one is other for one, other in zip(read, arrays.tensors, strict=True))
        if in_place and hidden.nbytes <= _MOST_BYTES:
            self._kept[layer] = arrays
        else:
            self._kept.pop(layer, None)
        return arrays
