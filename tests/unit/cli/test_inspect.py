"""`inspect` says no to what `serve` and `generate` refuse, for people and for programs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from faasmoe.cli import main as command
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.synthesis.geometries import GEOMETRIES


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["faasmoe", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    return int(caught.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(resolve(None).folder, tmp_path / "model"))


@pytest.mark.parametrize("arguments", [["inspect"], ["generate", "--prompt", "x"]])
def test_a_common_mistake_is_one_line_for_each_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "a.gguf").touch()
    assert run(monkeypatch, *arguments, str(tmp_path / "a.gguf")) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'a.gguf'} is no GGUF file: it does not begin with GGUF")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "", "tokenizer.json is not JSON"),
        ("generation_config.json", "[]", "generation_config.json should hold a JSON object, not a list"),
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1\n", "is a pointer of git-lfs"),
        ("config.json", '{"model_type": "new"}', "does not know the architecture (model_type) new"),
    ],
)
def test_programs_are_told_of_damage_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    name: str,
    content: str,
    said: str,
) -> None:
    (folder / name).write_text(content)
    assert run(monkeypatch, "inspect", "--json", str(folder)) == 2
    facts = json.loads(capsys.readouterr().out)
    assert facts["servable"] is False
    assert said in facts["reason"]


def test_the_format_of_published_weights_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small = {"hidden_size": 64, "intermediate_size": 96, "num_local_experts": 4, "vocab_size": 300, "head_dim": 16}
    monkeypatch.setitem(GEOMETRIES, "gpt-oss-20b", GEOMETRIES["gpt-oss-20b"] | small)
    made = [
        "models",
        "make",
        "gpt-oss-20b",
        "--layers",
        "2",
        "--published-format",
        "--out",
        str(tmp_path / "made"),
    ]
    assert run(monkeypatch, *made) == 0
    assert run(monkeypatch, "inspect", str(tmp_path / "made")) == 0
    assert "published in       │ mxfp4" in capsys.readouterr().out
    assert run(monkeypatch, "inspect", "--json", str(tmp_path / "made")) == 0
    assert json.loads(capsys.readouterr().out)["published_formats"] == ["dense", "mxfp4"]
