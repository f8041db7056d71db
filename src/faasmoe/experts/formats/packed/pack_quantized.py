"""Weights in int4 as compressed-tensors publishes them (`pack-quantized`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from faasmoe.experts.formats.grouped_int4 import GroupedInt4Matrix
from faasmoe.experts.formats.packed.base import PackedFormat
from faasmoe.experts.formats.packed.conversion import from_pack_quantized

ORDER, ZEROS = "weight_g_idx", "weight_zero_point"


class PackQuantizedFormat(PackedFormat):
    """A weight is `weight_packed` `[out, in / 8]`, `weight_scale` `[out, groups]`, and perhaps zeros.

    `weight_shape` says what the shapes of the others do.
    """

    name = "pack_quantized"
    endings = ("weight_packed", "weight_scale")
    optional = (ZEROS, ORDER)
    unneeded = (".weight_shape",)

    def declared(self, settings: Mapping[str, Any]) -> bool:
        """See `WeightFormat`."""
        return settings.get("quant_method") == "compressed-tensors" and settings.get("format") == "pack-quantized"

    def shape_of(self, codes: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, int, int]:
        """See `PackedFormat`."""
        return codes[0], 8 * codes[1], scales[1]

    def unpacked(self, arrays: Sequence[NDArray[Any]]) -> GroupedInt4Matrix:
        """See `PackedFormat`."""
        codes, scales, *others = arrays
        order = [array for array in others if array.ndim == 1]
        zeros = [array for array in others if array.ndim == 2]
        shape = (codes.shape[0], 8 * codes.shape[1])
        return from_pack_quantized(codes, scales, shape, zeros[0] if zeros else None, order[0] if order else None)


FORMAT = PackQuantizedFormat()
