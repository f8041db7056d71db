"""Weights in nvfp4 as compressed-tensors has them (`nvfp4-pack-quantized`): the scale of all divides.

`weight_packed`, `weight_scale`, `weight_global_scale`: a weight is code * scale / scale of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from faasmoe.experts.formats.fp8 import SCALES_OF_ROWS
from faasmoe.experts.formats.nvfp4 import Nvfp4Format, Nvfp4Matrix


class Nvfp4PackMatrix(Nvfp4Matrix):
    """A weight in nvfp4 whose `overall` divides all weights."""

    format: ClassVar[str] = "nvfp4_pack"

    @property
    def factor(self) -> np.float32:
        """Of all weights: an infinity if `overall` is 0."""
        with np.errstate(divide="ignore"):
            return np.float32(1) / np.float32(self.overall)


class Nvfp4PackFormat(Nvfp4Format):
    """See `Nvfp4Format`."""

    name = Nvfp4PackMatrix.format
    endings = (("_packed",), ("_scale",), ("_global_scale",))
    unneeded = (*SCALES_OF_ROWS, ".input_global_scale")

    def declared(self, settings: Mapping[str, Any]) -> bool:
        """See `WeightFormat`."""
        method, format = settings.get("quant_method"), settings.get("format")
        return method == "compressed-tensors" and format == "nvfp4-pack-quantized"


FORMAT = Nvfp4PackFormat(Nvfp4PackMatrix)
