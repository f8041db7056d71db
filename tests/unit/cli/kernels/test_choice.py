from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from faasmoe.cli.kernels import choice
from faasmoe.errors import OptionError
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import VARIABLE
from faasmoe.util.folders.user_cache import CACHE


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "cache"


def test_a_choice_is_kept_and_applied_unless_another_is_named(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    assert choice.remembered() is None
    choice.remember("baseline")
    assert choice.remembered() == "baseline"
    assert [file.name for file in cache.iterdir()] == ["kernels.json"]
    monkeypatch.setenv(VARIABLE, "avx2")
    choice.apply()
    assert os.environ[VARIABLE] == "avx2"
    monkeypatch.delenv(VARIABLE)
    choice.apply()
    assert os.environ[VARIABLE] == "baseline"
    monkeypatch.delenv(VARIABLE)


@pytest.mark.parametrize(
    "changed", [{"cpu": "another"}, {"version": "0"}, {"chosen": "avx1024"}, {"chosen": "/lib.so"}]
)
def test_what_was_measured_elsewhere_or_is_not_there_does_not_count(cache: Path, changed: dict[str, str]) -> None:
    file = choice.remember("baseline")
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert choice.remembered() is None


def test_a_cpu_with_other_microcode_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    choice.remember("baseline")
    here = Cpu.here()
    monkeypatch.setattr(Cpu, "here", lambda: here._replace(model=f"{here.model}, microcode 0xff"))
    assert choice.remembered() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "null"])
def test_a_damaged_file_is_told_and_does_not_count(
    caplog: pytest.LogCaptureFixture, cache: Path, content: str
) -> None:
    choice.remember("baseline").write_text(content)
    with caplog.at_level(logging.WARNING, "faasmoe"):
        assert choice.remembered() is None
    assert "so the CPU's flags decide" in caplog.text


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(OptionError, match=rf"kernels.json: .*Not a directory.*{CACHE} names a folder"):
        choice.remember("baseline")
