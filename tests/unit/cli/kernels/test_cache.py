from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from faasmoe.cli.kernels import cache
from faasmoe.errors import OptionError
from faasmoe.experts.kernels import instruction_set
from faasmoe.experts.kernels.calibration import ONEDNN, Calibration, Measurement
from faasmoe.experts.kernels.choice import VARIABLE, Choice
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import InstructionSet, known
from faasmoe.util.folders.user_cache import CACHE

FOUND = Calibration(
    [
        Measurement("bfloat16", 64, "cache", {"baseline": 4.0, ONEDNN: 1.0}),
        Measurement("int8", 1, "memory", {"baseline": 2.0}),
    ],
    2.5,
)


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, "")  # so that what `apply` sets is taken back
    monkeypatch.delenv(VARIABLE)
    return tmp_path / "cache" / "kernels.json"


def test_what_was_measured_is_kept_for_this_user_alone(file: Path) -> None:
    assert cache.remembered() is None
    assert cache.remember(FOUND) == file
    assert cache.remembered() == FOUND
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_another_measurement_replaces_the_last(file: Path) -> None:
    cache.remember(FOUND)
    newer = replace(FOUND, seconds=3.0)
    cache.remember(newer)
    assert cache.remembered() == newer


def test_the_choice_is_that_of_the_format_and_goes_to_all_children(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    sets = [InstructionSet(name, known(Cpu.here())[-1].file, True, ()) for name in ("wide", "baseline")]
    monkeypatch.setattr(instruction_set, "known", lambda _: sets)
    cache.apply("int8")
    assert VARIABLE not in os.environ
    cache.remember(
        Calibration(
            [
                Measurement("bfloat16", 64, "cache", {"wide": 8.0, "baseline": 4.0, ONEDNN: 1.0}),
                Measurement("int8", 1, "memory", {"wide": 1.0, "baseline": 2.0}),
            ],
            1.0,
        )
    )
    assert cache.choice("int8") == Choice("wide", 64)
    cache.apply()
    assert os.environ[VARIABLE] == "baseline,onednn=64"
    assert Choice.here() == Choice("baseline", 64)


def test_what_the_user_names_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.remember(FOUND)
    monkeypatch.setenv(VARIABLE, "avx2")
    cache.apply()
    assert os.environ[VARIABLE] == "avx2"


@pytest.mark.parametrize(
    "changed",
    [
        {"architecture": "riscv64"},
        {"cpu": "another, microcode 0x1"},
        {"cores": 999},
        {"kernels": "0"},
        {"version": "0"},
    ],
)
def test_what_was_measured_elsewhere_or_of_other_kernels_does_not_count(
    caplog: pytest.LogCaptureFixture, file: Path, changed: dict[str, Any]
) -> None:
    cache.remember(FOUND)
    content = json.loads(file.read_text())
    content["machine"] |= changed
    file.write_text(json.dumps(content))
    with caplog.at_level(logging.INFO, "faasmoe"):
        assert cache.remembered() is None
    assert f"{file} is of another machine or of other kernels" in caplog.text


def test_a_cpu_with_other_microcode_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.remember(FOUND)
    lines = ["model name: EPYC", "microcode: 0xa101154", "flags: fpu"]
    for microcode, same in (("0xa101154", True), ("0xa101155", False)):
        there = Cpu.parse("x86_64", [line.replace("0xa101154", microcode) for line in lines])
        monkeypatch.setattr(Cpu, "here", lambda there=there: there)
        if same:
            cache.remember(FOUND)
        assert (cache.remembered() is not None) == same


def test_the_machine_is_known_by_its_cpu_its_cores_and_the_kernels() -> None:
    here = cache._Machine.here()
    assert (here.architecture, here.cpu, here.cores) == (os.uname().machine, Cpu.here().model, os.cpu_count())
    assert here.kernels == known(Cpu.here())[-1].digest()


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda _: "",
    "no object": lambda _: "[]",
    "nothing": lambda _: "null",
    "not whole": lambda it: json.dumps(it)[:-9],
    "no text": lambda _: b"\xff\xfe\x00",
    "deep": lambda _: "[" * 50_000,
    "large": lambda it: json.dumps(it) + " " * cache._LARGEST,
    "without measurements": lambda it: json.dumps(it | {"calibration": {"measurements": [], "seconds": 1}}),
    "a number for a text": lambda it: json.dumps(it | {"machine": {**it["machine"], "cpu": 5}}),
    "no time": lambda it: json.dumps(it).replace("2.0", "0"),
    "a negative time": lambda it: json.dumps(it).replace("2.0", "-2.0"),
    "no number": lambda it: json.dumps(it).replace("2.0", "NaN"),
    "beyond numbers": lambda it: json.dumps(it).replace("2.0", "1e999"),
    "an escape of terminals": lambda it: json.dumps(it).replace("int8", "\\u001b[2J"),
    "another source": lambda it: json.dumps(it).replace("memory", "disk"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_a_damaged_file_is_told_and_does_not_count(
    caplog: pytest.LogCaptureFixture, file: Path, content: Callable[[dict[str, Any]], Any]
) -> None:
    cache.remember(FOUND)
    made = content(json.loads(file.read_text()))
    file.write_bytes(made if isinstance(made, bytes) else made.encode())
    with caplog.at_level(logging.WARNING, "faasmoe"):
        assert cache.choice(None) is None
    assert f"{file} does not count, so the CPU's flags choose kernels" in caplog.text


@pytest.mark.parametrize("made", ["link", "pipe", "folder", "another's"])
def test_what_this_user_has_not_written_is_told_and_does_not_count(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, file: Path, made: str
) -> None:
    written = cache.remember(FOUND).rename(file.with_name("elsewhere"))
    if made == "link":
        file.symlink_to(written)
    elif made == "pipe":
        os.mkfifo(file)
    elif made == "folder":
        file.mkdir()
    else:
        written.rename(file)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    with caplog.at_level(logging.WARNING, "faasmoe"):
        assert cache.remembered() is None
    assert "does not count" in caplog.text


def test_names_that_are_no_instruction_sets_of_this_machine_are_never_used(file: Path) -> None:
    cache.remember(
        Calibration([Measurement("bfloat16", 1, "memory", {"/tmp/evil.so": 0.1, "baseline": 9.0})], 1.0)
    )
    chosen = cache.choice(None)
    assert chosen is not None
    assert chosen.instruction_set == "baseline"


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(OptionError, match=rf"kernels.json: .*Not a directory.*{CACHE} names a folder"):
        cache.remember(FOUND)


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    cache.remember(FOUND)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OptionError, match="No space left"):
        cache.remember(replace(FOUND, seconds=9.0))
    assert cache.remembered() == FOUND
    assert list(file.parent.iterdir()) == [file]


def test_without_a_home_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise OptionError("no home")

    monkeypatch.setattr(cache, "user_cache", homeless)
    assert cache.remembered() is None


def test_without_kernels_there_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_set, "known", lambda _: [])
    assert cache.choice(None) is None
