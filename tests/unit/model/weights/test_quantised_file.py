from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from faasmoe.errors import CheckpointError
from faasmoe.experts.formats.base import MULTIPLE
from faasmoe.experts.formats.int8 import FORMAT
from faasmoe.model.checkpoint.header import read_header
from faasmoe.model.weights import quantised_file
from faasmoe.model.weights.quantised_file import QuantisedFile, SourceMatrix

WEIGHTS = {"a": torch.randn(5, 32), "b": torch.randn(32, 48).bfloat16(), "c": torch.randn(3, 16)}


def make(folder: Path, weights: dict[str, torch.Tensor] = WEIGHTS) -> QuantisedFile:
    """A file of `weights`, of which b is transposed."""
    save_file(weights, folder / "model.safetensors")
    places = read_header(folder / "model.safetensors")
    return QuantisedFile(
        folder / "copy.safetensors", FORMAT, [SourceMatrix(name, places[name], name == "b") for name in weights]
    )


def nothing(_: int) -> None:
    pass


def test_matrices_lie_where_they_were_announced(tmp_path: Path) -> None:
    file = make(tmp_path)
    announced = list(file.locations())
    assert not file.there
    file.write(nothing)
    assert file.there
    assert file.path.stat().st_size == file.nbytes
    for weight, place in zip([WEIGHTS["a"], WEIGHTS["b"].t(), WEIGHTS["c"]], announced, strict=True):
        assert place.shape == weight.shape
        assert place.nbytes == weight.numel() + 4 * len(weight)
        assert place.scale.offset % 4 == 0  # else it would be copied
        matrix = place.map()
        assert (np.abs(matrix.exact() - weight.float().numpy()) <= 0.5001 * matrix.scale[:, None]).all()


def test_it_is_a_safetensors_file_for_everybody(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.write(nothing)
    read = load_file(file.path)
    assert read.keys() == {"a", "a.scale", "b", "b.scale", "c", "c.scale"}
    for (name, _), place in zip(WEIGHTS.items(), file.locations(), strict=True):
        assert np.array_equal(read[name], place.map().values)
        assert np.array_equal(read[f"{name}.scale"], place.map().scale)
    assert read_header(file.path)["b"].shape == (48, 32)  # tiles the file, as ours asks of checkpoints


@given(rows=st.integers(1, 40))
def test_pieces_make_the_whole(tmp_path_factory: pytest.TempPathFactory, rows: int) -> None:
    folder, told = tmp_path_factory.mktemp("pieces"), list[int]()
    whole = make(folder)
    whole.write(nothing)
    wanted = whole.path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantised_file, "_PIECE", 16 * rows)
        whole.write(told.append)
    assert whole.path.read_bytes() == wanted
    assert sum(told) == sum(place.nbytes for place in whole.locations())


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: b"x" + content[1:], lambda _: b""]
)
def test_a_file_that_is_not_whole_or_not_ours_is_not_there(tmp_path: Path, damage) -> None:
    file = make(tmp_path)
    file.write(nothing)
    file.path.write_bytes(damage(file.path.read_bytes()))
    assert not file.there
    file.write(nothing)
    assert file.there


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    bad = {**WEIGHTS, "c": torch.full((3, 16), float("nan"))}
    file = make(tmp_path, bad)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: c cannot be quantized: .*not finite"):
        file.write(nothing)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_a_crash_has_left_is_written_over(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.path.with_suffix(".partial").write_bytes(bytes(100_000))
    file.write(nothing)
    assert file.there
    assert not file.path.with_suffix(".partial").exists()


def test_inputs_are_what_the_kernel_takes() -> None:
    assert FORMAT.multiple == MULTIPLE
