"""Weights in nvfp4 as compressed-tensors has them (`nvfp4-pack-quantized`): the scale of all divides.

`weight_packed`, `weight_scale`, `weight_global_scale`: a weight is code * scale / scale of all.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

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


FORMAT = Nvfp4PackFormat(Nvfp4PackMatrix)
