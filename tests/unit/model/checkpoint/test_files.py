from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointChanged, CheckpointError
from faasmoe.model.checkpoint.files import CheckpointFiles

READ = ("config.json", "model.safetensors", "tokenizer.model", "chat_template.jinja", "merges.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for name in (*READ, "README.md", "notes.txt"):
        (made / name).write_text(name)
    return made


def replaced(file: Path) -> None:
    twin = file.with_name("twin")
    shutil.copy2(file, twin)
    twin.replace(file)


def touched(file: Path) -> None:
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))


def test_the_files_that_loading_reads(folder: Path) -> None:
    (folder / "more.json").mkdir()
    (folder / "lost.json").symlink_to("nowhere")
    assert {file.name for file in CheckpointFiles.of(folder).states} == set(READ)


def test_a_pipe_among_them_is_refused_by_name(folder: Path) -> None:
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: it is a named pipe"):
        CheckpointFiles.of(folder)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("change", [replaced, touched, Path.unlink])
def test_every_change_is_found_and_logged_once(
    folder: Path, name: str, change, caplog: pytest.LogCaptureFixture
) -> None:
    files = CheckpointFiles.of(folder)
    files.check()
    change(folder / name)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            with pytest.raises(CheckpointChanged, match="restart the server") as caught:
                files.check()
    assert str(caught.value).startswith(f"{name} was ")
    assert str(folder) not in str(caught.value)
    assert [record.getMessage().startswith(f"{folder / name} was ") for record in caplog.records] == [True]


def test_what_is_mapped_outlives_its_name_but_not_a_change_in_place(folder: Path) -> None:
    files = CheckpointFiles.of(folder)
    replaced(folder / "config.json")
    (folder / "merges.txt").unlink()
    files.check_mapped()
    with (folder / "model.safetensors").open("a") as stream:
        stream.write("more")
    with pytest.raises(CheckpointChanged, match=r"model\.safetensors was changed from 17 to 21 bytes"):
        files.check_mapped()


def test_later_processes_of_a_server_read_what_the_first_has_read(folder: Path, tmp_path: Path) -> None:
    CheckpointFiles.of(folder).pin(tmp_path / "run")
    CheckpointFiles.of(folder).pin(tmp_path / "run")
    (folder / "notes.txt").write_text("nobody reads them")
    CheckpointFiles.of(folder).pin(tmp_path / "run")
    touched(folder / "config.json")
    with pytest.raises(CheckpointChanged, match=r"config\.json was written to"):
        CheckpointFiles.of(folder).pin(tmp_path / "run")
    CheckpointFiles.of(folder).pin(tmp_path / "another server's")
