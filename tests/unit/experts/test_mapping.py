from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faasmoe.errors import CheckpointError
from faasmoe.experts.mapping import TensorLocation, map_tensor


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    path.write_bytes(torch.arange(12.0).numpy().tobytes())
    return path


def test_a_tensor_shares_the_files_pages(file: Path) -> None:
    tensor = map_tensor(TensorLocation(file, 8, "F32", (2, 5)))
    assert torch.equal(tensor, torch.arange(2.0, 12).view(2, 5))
    with file.open("r+b") as stream:  # the map shows what the file holds, so nothing was copied
        stream.seek(8)
        stream.write(torch.tensor([99.0]).numpy().tobytes())
    assert tensor[0, 0] == 99


def test_an_unaligned_tensor_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"x" + torch.arange(3.0).numpy().tobytes())
    assert map_tensor(TensorLocation(path, 1, "F32", (3,))).tolist() == [0, 1, 2]


def test_one_entry_of_a_location(file: Path) -> None:
    where = TensorLocation(file, 0, "F32", (3, 4))
    assert map_tensor(where[2]).tolist() == [8, 9, 10, 11]
    with pytest.raises(IndexError):
        where[3]


def test_a_short_file_is_named(file: Path) -> None:
    with pytest.raises(CheckpointError, match="numbers has 48 bytes"):
        map_tensor(TensorLocation(file, 0, "F32", (13,)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone"):
        map_tensor(TensorLocation(tmp_path / "gone", 0, "F32", (1,)))
