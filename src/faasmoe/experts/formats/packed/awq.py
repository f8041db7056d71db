"""Weights as AutoAWQ publishes them (`version` `gemm`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from faasmoe.experts.formats.grouped_int4 import GroupedInt4Matrix
from faasmoe.experts.formats.packed.base import BITS, PackedFormat
from faasmoe.experts.formats.packed.conversion import from_awq


class AwqFormat(PackedFormat):
    """A weight is `qweight` `[in, out / 8]`, `scales` `[groups, out]` and `qzeros` `[groups, out / 8]`."""

    name = "awq"
    endings = ("qweight", "scales", "qzeros")

    def declared(self, settings: Mapping[str, Any]) -> bool:
        """See `WeightFormat`."""
        bits = settings.get("bits", settings.get("w_bit"))
        version = str(settings.get("version", "gemm")).lower()
        return settings.get("quant_method") == self.name and bits == BITS and version == "gemm"

    def found(self, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
        """See `WeightFormat`: GPTQ's arrays have the same names, so only a config tells."""
        return super().found(tensors, settings) if settings else {}

    def shape_of(self, codes: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, int, int]:
        """See `PackedFormat`."""
        return scales[1], codes[0], scales[0]

    def unpacked(self, arrays: Sequence[NDArray[Any]]) -> GroupedInt4Matrix:
        """See `PackedFormat`."""
        codes, scales, zeros = arrays
        return from_awq(codes, zeros, scales)


FORMAT = AwqFormat()
