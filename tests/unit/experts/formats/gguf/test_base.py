from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from faasmoe.errors import CheckpointError
from faasmoe.experts.formats.gguf.base import GgufFormat, GgufLocation
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.mapping import TensorLocation
from tests.unit.experts.formats.gguf.drawn import FORMATS, drawn

each_format = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)


@each_format
def test_weights_are_those_of_gguf(format: GgufFormat) -> None:
    kind = GGMLQuantizationType[format.name.upper()]
    assert (format.layout.weights, format.layout.nbytes) == GGML_QUANT_SIZES[kind]
    matrix = drawn(format, 40, 7, seed=0)
    found = format.widened(matrix, slice(3, 39))
    assert found.dtype == np.float32
    assert found.shape == (36, 7 * format.layout.weights)
    assert np.array_equal(found, dequantize(matrix.blocks, kind)[3:39])


@each_format
def test_its_shape_is_the_weights(format: GgufFormat) -> None:
    matrix = drawn(format, 6, 3, seed=1)
    assert matrix.shape == (6, 3 * format.layout.weights)
    assert matrix.nbytes == 18 * format.layout.nbytes
    assert matrix[2:5].shape == (3, matrix.shape[1])
    assert np.array_equal(format.widened(matrix[2:5], slice(1, 3)), format.widened(matrix, slice(3, 5)))
    assert format.widened(matrix, slice(6, 9)).shape == (0, matrix.shape[1])
    assert format_of(matrix) is format


@each_format
def test_a_location_of_experts_loads_what_lies_there(format: GgufFormat, tmp_path: Path) -> None:
    matrix = drawn(format, 6, 2, seed=2)
    (tmp_path / "weights").write_bytes(b"x" + matrix.blocks.tobytes())  # at no multiple of anything
    whole = TensorLocation(tmp_path / "weights", 1, "U8", (2, 3, matrix.blocks.shape[1]))
    place = format.location([whole])
    assert isinstance(place, GgufLocation)
    assert place.shape == (2, 3, matrix.shape[1])
    entry = format.entry(place, 1)
    assert entry.shape == (3, matrix.shape[1])
    assert entry.memory(2) == entry.nbytes == place.nbytes // 2
    (blocks,) = format.arrays(entry.map())
    assert np.array_equal(blocks, matrix.blocks[3:])


@each_format
def test_arrays_that_are_no_whole_blocks_are_refused(format: GgufFormat) -> None:
    size = format.layout.nbytes
    for dtype, shape in (("U8", (4, size + 2)), ("I8", (4, size)), ("U8", (size,))):
        with pytest.raises(CheckpointError, match=rf"w: {dtype} .* no weight in {format.name}"):
            format.location([TensorLocation(Path("w"), 0, dtype, shape)])
