from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointError, OptionError
from faasmoe.model.checkpoint.files import CheckpointFiles
from faasmoe.model.checkpoint.gguf import folder
from faasmoe.model.checkpoint.gguf.folder import folder_of, shards_of
from faasmoe.model.checkpoint.gguf_link import linked_files
from faasmoe.model.checkpoint.source import resolve


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """What the process that reads metadata was called with."""
    calls: list[Sequence[str]] = []

    def run(module: str, arguments: Sequence[str], what: str) -> None:
        calls.append(arguments)
        (Path(arguments[1]) / "config.json").write_text("{}")
        (Path(arguments[1]) / "tokenizer.json").write_text("{}")

    monkeypatch.setattr(folder, "run_apart", run)
    monkeypatch.setenv("FAASMOE_CACHE", str(tmp_path / "cache"))
    return calls


def test_a_file_s_folder_is_made_once_and_links_to_it(made: list[Sequence[str]], tmp_path: Path) -> None:
    file = tmp_path / "Model-Q8_0.gguf"
    file.write_bytes(b"GGUF")
    source = resolve(str(file))
    assert source.name == "Model-Q8_0"
    assert source.folder.parent == tmp_path / "cache" / "gguf"
    assert sorted(made.name for made in source.folder.iterdir()) == [
        "config.json", "copy.json", "faasmoe-gguf.json", "tokenizer.json", "used",
    ]  # fmt: skip
    assert linked_files(source.folder) == [file]
    assert file in CheckpointFiles.of(source.folder).states
    assert resolve(str(file)) == source
    assert len(made) == 1


def test_a_changed_file_has_another_folder_and_the_first_goes(made: list[Sequence[str]], tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    _, before = folder_of(file)
    file.write_bytes(b"GGUF again")
    _, after = folder_of(file)
    assert after != before
    assert not before.exists()
    assert len(made) == 2


def test_a_folder_that_was_left_half_made_is_made_again(made: list[Sequence[str]], tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    _, first = folder_of(file)
    (first / "config.json").unlink()
    assert folder_of(file) == ("a", first)
    assert (first / "config.json").is_file()


def test_a_cache_that_cannot_be_written_is_told_by_name(made: list[Sequence[str]], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(OptionError, match=r"a\.gguf cannot be written to .*FAASMOE_CACHE names another folder"):
        folder_of(tmp_path / "a.gguf")


def test_the_files_of_a_split_model_are_found(tmp_path: Path) -> None:
    first, second = (tmp_path / f"Model-0000{number}-of-00002.gguf" for number in (1, 2))
    first.touch()
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.gguf is missing, of the 2 files"):
        shards_of(first)
    second.touch()
    assert shards_of(first) == ("Model", [first, second])
    with pytest.raises(CheckpointError, match=r"one of 2 files of a model; give the first: .*00001-of-00002"):
        shards_of(second)


def test_a_link_to_nothing_usable_is_refused(tmp_path: Path) -> None:
    assert linked_files(tmp_path) == []
    (tmp_path / "faasmoe-gguf.json").write_text(json.dumps({"files": "a"}))
    with pytest.raises(CheckpointError, match="names no files"):
        linked_files(tmp_path)
