from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from faasmoe.errors import CheckpointChanged, CheckpointError
from faasmoe.experts.dtypes import BY_NAME, widened
from faasmoe.experts.file_state import FileState
from faasmoe.experts.mapping import TensorLocation, map_array


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    path.write_bytes(np.arange(12, dtype=np.float32).tobytes())
    return path


def test_an_array_shares_the_files_pages(file: Path) -> None:
    array = map_array(TensorLocation(file, 8, "F32", (2, 5)))
    assert array.tolist() == [[2, 3, 4, 5, 6], [7, 8, 9, 10, 11]]
    assert not array.flags.writeable
    with file.open("r+b") as stream:  # the map shows what the file holds, so nothing was copied
        stream.seek(8)
        stream.write(np.float32(99).tobytes())
    assert array[0, 0] == 99


def test_an_unaligned_array_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"x" + np.arange(3, dtype=np.float32).tobytes())
    array = map_array(TensorLocation(path, 1, "F32", (3,)))
    assert array.tolist() == [0, 1, 2]
    assert array.flags.aligned


def test_an_array_without_numbers_maps_nothing(tmp_path: Path) -> None:
    assert map_array(TensorLocation(tmp_path / "gone", 0, "BF16", (3, 0))).shape == (3, 0)


@pytest.mark.parametrize(
    ("stored", "computed", "loaded"),
    [
        ("F32", "F32", "F32"),
        ("F16", "F32", "F16"),
        ("BF16", "F32", "BF16"),
        ("F64", "F32", "F32"),
        ("BF16", "BF16", "BF16"),
        ("F32", "BF16", "BF16"),
        ("F16", "BF16", "BF16"),
        ("F64", "BF16", "BF16"),
        ("F64", None, "F64"),
    ],
)
def test_a_weight_is_copied_only_if_it_must_be_rounded(
    tmp_path: Path, stored: str, computed: str | None, loaded: str
) -> None:
    path, ones = tmp_path / "ones", np.full(8, 0x3F80, np.uint16) if stored == "BF16" else np.ones(8)
    path.write_bytes(ones.astype(BY_NAME[stored]).tobytes())
    location = TensorLocation(path, 0, stored, (2, 4))
    array = location.map(computed)
    assert array.dtype == BY_NAME[loaded]
    assert array.flags.writeable == (stored != loaded)  # a map cannot be written to
    assert (widened(array) == 1).all()
    if computed:
        assert location.memory(BY_NAME[computed].itemsize) == array.nbytes


def test_one_entry_of_a_location(file: Path) -> None:
    where = TensorLocation(file, 0, "F32", (3, 4))
    assert map_array(where[2]).tolist() == [8, 9, 10, 11]
    with pytest.raises(IndexError):
        where[3]


def test_a_short_file_is_named(file: Path) -> None:
    with pytest.raises(CheckpointError, match="numbers has 48 bytes"):
        map_array(TensorLocation(file, 0, "F32", (13,)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone"):
        map_array(TensorLocation(tmp_path / "gone", 0, "F32", (1,)))


@pytest.fixture
def indexed(file: Path) -> TensorLocation:
    return TensorLocation(file, 0, "F32", (3, 4), FileState.read(file))


def test_a_file_that_is_as_it_was_indexed_is_mapped(indexed: TensorLocation) -> None:
    assert map_array(indexed[1]).tolist() == [4, 5, 6, 7]


def _replace(file: Path) -> None:
    twin = file.with_name("twin")
    shutil.copy2(file, twin)
    twin.replace(file)


def _rewrite(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.write(b"\1" * 4)
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))  # clocks of file systems are coarse


def _truncate(file: Path) -> None:
    os.truncate(file, 8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_replace, "was replaced by another file"),
        (_rewrite, "was written to"),
        (_truncate, "was changed from 48 to 8 bytes"),
        (Path.unlink, "was removed"),
    ],
)
def test_a_file_that_has_changed_is_refused_by_name(
    file: Path, indexed: TensorLocation, change, said: str
) -> None:
    change(file)
    with pytest.raises(CheckpointChanged) as caught:
        map_array(indexed[2])
    assert str(caught.value) == (
        f"numbers {said} while the model was in use; restart the server to load what is there now"
    )


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(CheckpointError, match="cannot open numbers: it is a named pipe, not a file"):
        map_array(TensorLocation(file, 0, "F32", (1,)))
