"""What holds for every format by group: its products, its files, and experts in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from faasmoe.experts.expert import ExpertForm, ExpertWeights, Gate
from faasmoe.experts.formats.by_group import GroupedMatrix
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.tensors import as_array
from tests.experts import TorchExpert, assert_stands_for
from tests.products import assert_linear, operands


def random_bytes(random: np.random.Generator, *shape: int) -> NDArray[np.uint8]:
    return random.integers(0, 256, shape, np.uint8)


def assert_is_a_linear_layer(matrix: GroupedMatrix, weight: NDArray[np.floating], rows: int, seed: int) -> None:
    """Products are those of `weight`, rounded once, with and without bias."""
    x, _, bias = operands(rows, *matrix.shape, seed)
    for its_bias in (None, bias):
        assert_linear(matrix, torch.from_numpy(weight.astype(np.float64)), x, its_bias)


def assert_means(matrix: GroupedMatrix, weight: NDArray[np.floating]) -> None:
    """`matrix` is `weight` as far as float32 tells."""
    format = format_of(matrix)
    wide = format.widened(matrix, slice(None))
    assert wide.dtype == np.float32
    assert matrix.shape == wide.shape == weight.shape
    np.testing.assert_allclose(wide, weight, rtol=3e-7)
    np.testing.assert_array_equal(format.widened(matrix, slice(1, 3)), wide[1:3])


def assert_files_are_read_in_place(
    folder: Path, matrix: GroupedMatrix, arrays: list[tuple[str, NDArray[np.generic]]]
) -> None:
    """A location of `arrays`, of the dtypes named, loads `matrix`; an entry of two stacked ones loads each."""
    format, number = format_of(matrix), iter(range(9))

    def written(dtype: str, array: NDArray[np.generic]) -> TensorLocation:
        path = folder / f"{next(number)}"
        path.write_bytes(b"\0\0\0\0" + array.tobytes())
        return TensorLocation(path, 4, dtype, array.shape)

    place = format.location([written(*each) for each in arrays])
    stacked = format.location([written(dtype, np.stack([array, array])) for dtype, array in arrays])
    assert (stacked.format, stacked.shape) == (format.name, (2, *matrix.shape))
    for location in (place, format.entry(stacked, 1)):
        loaded = location.map()
        assert location.format == format_of(loaded).name == format.name
        assert location.shape == matrix.shape
        assert location.nbytes == location.memory(2) == sum(part.nbytes for part in location.parts)
        np.testing.assert_array_equal(format.widened(loaded, slice(None)), format.widened(matrix, slice(None)))
        assert len(format.arrays(loaded)) == len(location.parts)
        assert format.addresses(loaded) is not None


def assert_experts_are_those_that_they_stand_for(first: GroupedMatrix, down: GroupedMatrix) -> None:
    """With gate and up alternating in `first`."""
    form = ExpertForm(Gate("swiglu_oai", limit=7.0, alpha=1.702), interleaved=True)
    torch.manual_seed(0)
    biases = [(torch.randn(each.shape[0]) / 4).bfloat16() for each in (first, down)]
    weights = ExpertWeights((first,), down, (as_array(biases[0]),), as_array(biases[1]))
    means = [torch.from_numpy(format_of(each).widened(each, slice(None))) for each in (first, down)]
    assert_stands_for(weights, TorchExpert((means[0],), means[1], (biases[0],), biases[1]), form, most=0.004)
