from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from faasmoe.model import copies


def made(folder: Path, source: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "dense.safetensors").write_bytes(b"weights")
    copies.record(folder, [copies.state(source)])
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "checkpoint" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"as it was")
    return file


def test_a_copy_stays_as_long_as_its_checkpoint(tmp_path: Path, source: Path) -> None:
    copy = made(tmp_path / "int8" / "one", source)
    copies.sweep(tmp_path / "int8")
    assert copy.exists()


@pytest.mark.parametrize("how", ["gone", "folder gone", "changed", "unreadable"])
def test_others_go_and_the_log_says_so(
    tmp_path: Path, source: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    copy = made(tmp_path / "int8" / "one", source)
    if how == "gone":
        source.unlink()
    elif how == "folder gone":
        shutil.rmtree(source.parent)
    elif how == "changed":
        source.write_bytes(b"as it is now")
    else:
        (copy / "made-from.json").write_text("[1]")
    other = tmp_path / "int8" / "of somebody else"
    other.mkdir()
    with caplog.at_level(logging.INFO, "faasmoe"):
        copies.sweep(tmp_path / "int8")
    assert [path.name for path in (tmp_path / "int8").iterdir()] == [other.name]
    assert f"removing {copy}, 0.00 GB: its checkpoint is gone or has changed" in caplog.text


def test_what_is_used_stays_until_it_is_not(tmp_path: Path, source: Path) -> None:
    copy = made(tmp_path / "int8" / "one", source)
    source.unlink()
    with copies.use(copy), copies.use(copy):
        copies.sweep(tmp_path / "int8")
        assert (copy / "dense.safetensors").exists()
    copies.sweep(tmp_path / "int8")
    assert not copy.exists()
