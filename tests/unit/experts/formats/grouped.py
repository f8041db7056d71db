"""What holds for every format by group: its products, its files, and experts in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from faasmoe.experts.dtypes import BFLOAT16
from faasmoe.experts.expert import ExpertForm, ExpertWeights, Gate
from faasmoe.experts.formats.by_group import GroupedMatrix
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.fused import FusedExperts
from faasmoe.experts.mapping import TensorLocation
from faasmoe.experts.payload import Request
from faasmoe.model.dense.layers import Layers
from faasmoe.model.dense.matvec import linear_rows
from faasmoe.model.dense.team import Team
from faasmoe.model.tensors import as_array
from tests.experts import TorchExpert, forward
from tests.unit.model.dense.test_matvec import assert_rounded_once


def random_bytes(random: np.random.Generator, *shape: int) -> NDArray[np.uint8]:
    return random.integers(0, 256, shape, np.uint8)


def assert_is_a_linear_layer(matrix: GroupedMatrix, weight: NDArray[np.floating], rows: int, seed: int) -> None:
    """Products are those of `weight`, rounded once, with and without bias; rows have the same bits in any company."""
    random = torch.Generator().manual_seed(seed)
    outs, ins = matrix.shape
    x, bias = (torch.randn(shape, generator=random).bfloat16() for shape in ((rows, ins), (outs,)))
    for its_bias in (None, bias):
        y = linear_rows(x, matrix, its_bias)
        assert_rounded_once(y, x, torch.from_numpy(weight.astype(np.float64)), its_bias)
    for row, wanted in zip(x, y, strict=True):
        assert torch.equal(linear_rows(row[None], matrix, bias)[0], wanted)
    if outs > 1:
        assert torch.equal(linear_rows(x, matrix[1:], bias[1:]), y[:, 1:])


def assert_means(matrix: GroupedMatrix, weight: NDArray[np.floating]) -> None:
    """`matrix` is `weight` as far as float32 tells."""
    format = format_of(matrix)
    wide = format.widened(matrix, slice(None))
    assert wide.dtype == np.float32
    assert matrix.shape == wide.shape == weight.shape
    np.testing.assert_allclose(wide, weight, rtol=3e-7)
    np.testing.assert_array_equal(format.widened(matrix, slice(1, 3)), wide[1:3])


def assert_a_team_has_the_bits_of_one_thread(matrix: GroupedMatrix) -> None:
    x = torch.randn(3, matrix.shape[1]).bfloat16()
    assert torch.equal(Team(2).run(Layers((matrix, None)), x)[0], linear_rows(x, matrix))


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
    """With gate and up alternating in `first`, and in one call for all rows or in one for each."""
    form = ExpertForm(Gate("swiglu_oai", limit=7.0, alpha=1.702), interleaved=True)
    torch.manual_seed(0)
    biases = [(torch.randn(each.shape[0]) / 4).bfloat16() for each in (first, down)]
    weights = ExpertWeights((first,), down, (as_array(biases[0]),), as_array(biases[1]))
    meant = [torch.from_numpy(format_of(each).widened(each, slice(None))).double() for each in (first, down)]
    x, experts = torch.randn(19, first.shape[1]).bfloat16(), FusedExperts([weights], form, "BF16")
    wanted = forward(
        x.double(), TorchExpert((meant[0],), meant[1], (biases[0].double(),), biases[1].double()), form
    )
    together = sums_of(experts, x, down.shape[0])
    assert np.linalg.norm(together - wanted.numpy()) < 0.004 * np.linalg.norm(wanted.numpy())
    for i in range(len(x)):
        assert np.array_equal(sums_of(experts, x[i : i + 1], down.shape[0])[0], together[i])


def sums_of(experts: FusedExperts, x: torch.Tensor, hidden: int) -> NDArray[np.float32]:
    rows = as_array(x)
    assert rows.dtype == BFLOAT16
    index, sums = np.arange(len(x), dtype=np.int32), np.zeros((len(x), hidden), np.float32)
    experts.forward(Request(0, rows, index, np.zeros_like(index), np.ones(len(x), np.float32)), sums)
    return sums
