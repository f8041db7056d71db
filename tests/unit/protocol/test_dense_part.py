"""The file that names what orchestrators elsewhere read of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.platforms.cluster.weights import file_table
from faasmoe.protocol import dense_part

ROWS = [("/m/config.json", 1, 2, 30, 4), ("/m/model.safetensors", 1, 3, 9000, 4)]
RANGES = [("/m/config.json", 0, 30), ("/m/model.safetensors", 0, 100), ("/m/model.safetensors", 200, 50)]


def test_ranges_are_read_as_they_were_written(tmp_path: Path) -> None:
    dense_part.write(tmp_path / "dense", ROWS, RANGES)
    assert dense_part.read(tmp_path / "dense") == RANGES


def test_its_last_line_is_a_file_table(tmp_path: Path) -> None:
    dense_part.write(tmp_path / "dense", ROWS, RANGES)
    _, rows = file_table.split((tmp_path / "dense").read_bytes())
    assert rows == ROWS


@pytest.mark.parametrize("text", [b"", b"[]", b"[[0,0,1]]\n[]\n", b"[[0,0]]\n[]\n", b"{}\n{}\n"])
def test_a_malformed_file_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "dense").write_bytes(text)
    with pytest.raises(ValueError, match=r"."):
        dense_part.read(tmp_path / "dense")
