from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from faasmoe.util.folders import copy_cache

FILE = "dense.safetensors"


def made(folder: Path, source: Path) -> Path:
    copy_cache.create(folder, [copy_cache.state(source)], [FILE])
    (folder / FILE).write_bytes(b"weights")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "checkpoint" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"as it was")
    return file


def test_a_copy_stays_as_long_as_its_checkpoint(tmp_path: Path, source: Path) -> None:
    copy = made(tmp_path / "int8" / "one", source)
    copy_cache.sweep(tmp_path / "int8")
    assert copy.exists()
    copy_cache.create(copy, [copy_cache.state(source)], [FILE])  # again is fine
    assert (copy / FILE).read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "int8").iterdir()] == ["one"]


@pytest.mark.parametrize("how", ["gone", "folder gone", "changed"])
def test_others_go_and_the_log_says_so(
    tmp_path: Path, source: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    copy = made(tmp_path / "int8" / "one", source)
    (copy / "dense.partial").touch()
    (copy / copy_cache.LOCK).touch()
    if how == "gone":
        source.unlink()
    elif how == "folder gone":
        shutil.rmtree(source.parent)
    else:
        source.write_bytes(b"as it is now")
    other = tmp_path / "int8" / "of somebody else"
    other.mkdir()
    with caplog.at_level(logging.INFO, "faasmoe"):
        copy_cache.sweep(tmp_path / "int8")
    assert [path.name for path in (tmp_path / "int8").iterdir()] == [other.name]
    assert f"removing {copy}, 0.00 GB: its checkpoint is gone or has changed" in caplog.text


@pytest.mark.parametrize(
    "manifest",
    ["", "[1]", "{}", '{"kind": "a copy", "sources": [["/gone", 1, 2]], "files": ["dense.safetensors"]}'],
)
def test_a_folder_whose_manifest_is_not_ours_stays(tmp_path: Path, source: Path, manifest: str) -> None:
    copy = made(tmp_path / "int8" / "one", source)
    source.unlink()
    (copy / "copy.json").write_text(manifest)
    copy_cache.sweep(tmp_path / "int8")
    assert (copy / FILE).exists()


def test_only_files_of_the_copy_are_removed(tmp_path: Path, source: Path) -> None:
    copy = made(tmp_path / "int8" / "one", source)
    manifest = json.loads((copy / "copy.json").read_text())
    outside = made(tmp_path / "int8" / "outside", source)
    manifest["files"] = [f"../outside/{FILE}"]
    (outside / "copy.json").write_text(json.dumps(manifest))
    (copy / "notes").write_text("somebody's")
    source.unlink()
    copy_cache.sweep(tmp_path / "int8")
    assert [path.name for path in copy.iterdir()] == ["notes"]
    assert (outside / FILE).exists()


def test_the_place_of_a_copy_is_not_taken_from_somebody(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "int8" / "one"
    folder.mkdir(parents=True)
    with pytest.raises(FileExistsError, match="no copy that FaaSMoE has made, move it away"):
        copy_cache.create(folder, [copy_cache.state(source)], [FILE])
    assert list(folder.iterdir()) == []


def test_who_loses_a_race_uses_what_the_other_has_made(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "int8" / "one"

    def slower(draft: Path, target: Path) -> Path:
        monkeypatch.undo()
        made(target, source)
        return draft.rename(target)

    monkeypatch.setattr(Path, "rename", slower)
    copy_cache.create(copy, [copy_cache.state(source)], [FILE])
    assert (copy / FILE).exists()
    assert [path.name for path in copy.parent.iterdir()] == ["one"]


def test_what_is_used_stays_until_it_is_not(tmp_path: Path, source: Path) -> None:
    copy = made(tmp_path / "int8" / "one", source)
    source.unlink()
    with copy_cache.use(copy), copy_cache.use(copy):
        copy_cache.sweep(tmp_path / "int8")
        assert (copy / "dense.safetensors").exists()
    copy_cache.sweep(tmp_path / "int8")
    assert not copy.exists()
