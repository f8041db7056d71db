"""Weights as AutoGPTQ and GPTQModel publish them, with zeros that are stored less one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from faasmoe.experts.formats.grouped_int4 import GroupedInt4Matrix
from faasmoe.experts.formats.packed.base import BITS, PackedFormat
from faasmoe.experts.formats.packed.conversion import from_gptq


class GptqFormat(PackedFormat):
    """A weight is `qweight` `[in / 8, out]`, `scales` `[groups, out]`, `qzeros` `[groups, out / 8]`, and `g_idx`."""

    name = "gptq"
    version: ClassVar[int] = 1
    endings = ("qweight", "scales", "qzeros")
    optional = ("g_idx",)

    def declared(self, settings: Mapping[str, Any]) -> bool:
        """See `WeightFormat`: the config's `checkpoint_format` is the name of the format, or there is none."""
        made = settings.get("checkpoint_format", "gptq")
        return settings.get("quant_method") == "gptq" and settings.get("bits") == BITS and made == self.name

    def found(self, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
        """See `WeightFormat`: only a config tells what zeros mean."""
        return super().found(tensors, settings) if settings else {}

    def shape_of(self, codes: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, int, int]:
        """See `PackedFormat`."""
        return codes[1], 8 * codes[0], scales[0]

    def unpacked(self, arrays: Sequence[NDArray[Any]]) -> GroupedInt4Matrix:
        """See `PackedFormat`."""
        codes, scales, zeros, *order = arrays
        return from_gptq(codes, zeros, scales, order[0] if order else None, self.version)


FORMAT = GptqFormat()
