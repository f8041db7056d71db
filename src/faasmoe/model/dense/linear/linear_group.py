"""Linear layers that take the same rows, as the kernels read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.registry import addresses
from faasmoe.model.dense.linear import matvec

# The columns of the table, a `Layer` of `c/linear/ahead.h`: addresses of weights and scales, format, address of bias,
# outs, the outs of the layers before, the number of the layer's first piece, outs a piece.
_COLUMNS = 8
_PIECE_BYTES = 256 << 10  # of weights: long enough to stream, short enough to share
_PIECE_OUTS = 48  # a piece is a multiple of it, which the kernel has no rest of


class Layers:
    """A group of linear layers. Keeps alive the tensors whose addresses it holds."""

    def __init__(self, *layers: tuple[Matrix, Tensor | None]) -> None:
        """Weights `[out, in]` and biases `[out]`. Raises `ValueError` for what `fit` refuses."""
        places = [addresses(weight) for weight, _ in layers]
        if not fit(layers):
            shapes = ", ".join(f"{tuple(weight.shape)}" for weight, _ in layers)
            raise ValueError(f"no kernel for layers of the shapes {shapes}")
        self._layers = layers
        self.dtype = matvec.row_dtype(layers[0][0])  # of rows and results
        read = [place for place in places if place is not None]
        self.ins = layers[0][0].shape[1]
        self.outs = [weight.shape[0] for weight, _ in layers]
        self._table = np.zeros((len(layers), _COLUMNS), np.int64)
        line = layers[0][0].nbytes // self.outs[0]  # bytes
        piece = max(1, _PIECE_BYTES // line // _PIECE_OUTS) * _PIECE_OUTS
        pieces = before = 0
        for row, (weight, bias), place in zip(self._table, layers, read, strict=True):
            outs = weight.shape[0]
            row[:] = (*place, 0 if bias is None else address(bias), outs, before, pieces, piece)
            before += outs
            pieces += -(-outs // piece)
        self._group = np.array([address(self._table), len(layers), pieces, self.ins, 0], np.int64)  # a `Group`
        self.address = address(self._group)
        self._next: Layers | None = None  # whose turn came after these the last time
        self.read_ahead = False  # its weights, when these layers have run

    def lead_to(self, following: Layers, *, at_once: bool) -> None:
        """The turn of `following` comes after these. Its weights are worth reading ahead if that is `at_once`."""
        if following is self._next and at_once == self.read_ahead:
            return
        self._next, self.read_ahead = following, at_once
        self._group[-1] = following.address if at_once else 0


def fit(layers: Sequence[tuple[Matrix, Tensor | None]]) -> bool:
    """Whether the kernels can run them on the same rows: all readable, of one width and one format."""
    places = [addresses(weight) for weight, _ in layers]
    dtype = matvec.row_dtype(layers[0][0])
    return (
        len({(weight.shape[1], place and place.format) for (weight, _), place in zip(layers, places, strict=True)})
        == 1
        and all(place is not None for place in places)
        and all(matvec.readable_bias(bias, weight, dtype) for weight, bias in layers)
        and all(bias is None or bias.is_contiguous() for _, bias in layers)
    )
