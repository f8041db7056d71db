"""The types of tensors in GGUF files, by ggml's numbers (`enum ggml_type` of ggml.h), and where weights lie.

Without torch. Types that no weight format of ours reads are known by their size: the dense part's weights in them are
turned into plain numbers when they are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.file_state import FileState
from faasmoe.experts.formats import registry
from faasmoe.experts.formats.base import MatrixLocation
from faasmoe.experts.formats.gguf.base import GgufLayout, GgufLocation
from faasmoe.experts.mapping import TensorLocation, map_array
from faasmoe.model.checkpoint.gguf.header import GgufHeader, GgufTensor, check_places

PLAIN = {0: "F32", 1: "F16", 28: "F64", 30: "BF16"}  # to dtypes
FORMATS = {8: "q8_0", 12: "q4_k", 14: "q6_k", 39: "gguf_mxfp4"}  # to weight formats


# by their names in `gguf.quants`, which turns them into numbers
OTHERS = {
    2: GgufLayout("Q4_0", 32, 18),
    3: GgufLayout("Q4_1", 32, 20),
    6: GgufLayout("Q5_0", 32, 22),
    7: GgufLayout("Q5_1", 32, 24),
    10: GgufLayout("Q2_K", 256, 84),
    11: GgufLayout("Q3_K", 256, 110),
    13: GgufLayout("Q5_K", 256, 176),
    20: GgufLayout("IQ4_NL", 32, 18),
    23: GgufLayout("IQ4_XS", 256, 136),
}


class WidenedLocation(GgufLocation):
    """The location of a weight in another type. It becomes float32 when it is mapped."""

    __slots__ = ()

    @property
    def format(self) -> str:
        """See `MatrixLocation`."""
        return TensorLocation.format

    def memory(self, width: int) -> int:
        """See `MatrixLocation`: plain numbers."""
        return width * prod(self.shape)

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> NDArray[np.float32]:
        """See `MatrixLocation`: a copy in float32, whatever `dtype` says."""
        from gguf import GGMLQuantizationType  # noqa: PLC0415 - takes a third of a second
        from gguf.quants import dequantize  # noqa: PLC0415

        numbers: NDArray[np.float32] = dequantize(
            map_array(self.blocks, read_ahead), GGMLQuantizationType[self.layout.format]
        )
        return numbers


def locations(header: GgufHeader) -> dict[str, MatrixLocation]:
    """The location of each tensor of a file, whose path is resolved.

    Raises `UnsupportedModel` for a type that is not read, `CheckpointError` if rows are no whole blocks, or tensors lie
    beyond the file's end or on each other.
    """
    file = header.file.resolve()
    found = {tensor.name: _location(file, header.state, tensor) for tensor in header.tensors}
    check_places(header, _sizes(found))
    return found


def _location(file: Path, state: FileState, tensor: GgufTensor) -> MatrixLocation:
    if tensor.type in PLAIN:
        return TensorLocation(file, tensor.offset, PLAIN[tensor.type], tensor.shape, state)
    if tensor.type in FORMATS:
        format: Any = registry.by_name(FORMATS[tensor.type])
        weights, nbytes = format.layout.weights, format.layout.nbytes
    elif tensor.type in OTHERS:
        _, weights, nbytes = OTHERS[tensor.type]
    else:
        raise UnsupportedModel(
            f"{file}: tensor {tensor.name} has ggml's type {tensor.type}, which is not read; "
            f"{', '.join([*PLAIN.values(), *FORMATS.values()])} are served"
        )
    *rest, width = tensor.shape
    if width % weights:
        raise CheckpointError(f"{file}: tensor {tensor.name} has rows of {width}, no multiple of {weights}")
    blocks = TensorLocation(file, tensor.offset, "U8", (*rest, width // weights * nbytes), state)
    if tensor.type in OTHERS:
        return WidenedLocation(OTHERS[tensor.type], blocks)
    return registry.by_name(FORMATS[tensor.type]).location([blocks])


def _sizes(found: Mapping[str, MatrixLocation]) -> dict[str, int]:
    return {name: location.nbytes for name, location in found.items()}
