"""`faasmoe kernels`, for people and for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from faasmoe.cli import main as command
from faasmoe.cli.kernels import choice
from faasmoe.experts.kernels import calibration
from faasmoe.experts.kernels.calibration import PRODUCTS, Calibration
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import VARIABLE, known
from faasmoe.util.folders.user_cache import CACHE

UNMEASURED = "the best by the CPU's flags, and nothing was measured"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["faasmoe", "kernels", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def old_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that runs nothing but the baseline, whatever this machine has."""
    monkeypatch.setenv(CACHE, str(tmp_path))
    here = Cpu.here()
    monkeypatch.setattr(Cpu, "here", lambda: here._replace(model="Old 8", flags=frozenset()))
    monkeypatch.delenv(VARIABLE, raising=False)


def test_programs_read_which_sets_there_are_and_why_one_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["architecture"], facts["cpu"]) == (Cpu.here().architecture, "Old 8")
    assert (facts["chosen"], facts["reason"]) == ("baseline", UNMEASURED)
    *better, baseline = facts["instruction_sets"]
    assert baseline == {"name": "baseline", "built": True, "lacking": []}
    assert all(each["built"] and each["lacking"] for each in better)


def test_people_see_a_table_in_which_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch) == 0
    out = capsys.readouterr().out
    assert "Old 8" in out
    assert max(map(len, out.splitlines())) <= 80
    assert out.rstrip().endswith(f"baseline is used: {UNMEASURED}")


def test_a_set_that_is_named_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "baseline")
    assert run(monkeypatch, "--json") == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "FAASMOE_KERNELS=baseline"
    monkeypatch.setenv(VARIABLE, "avx1024")
    assert run(monkeypatch) == 2
    assert capsys.readouterr().err == "error: FAASMOE_KERNELS=avx1024: must be one of baseline, which run here\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_measured_is_shown_and_used_from_then_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    found = Calibration({"baseline": [1.0 + i for i in range(len(PRODUCTS))]}, "baseline")
    monkeypatch.setattr(calibration, "calibrate", lambda names: found if names == ["baseline"] else None)
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, "--measure", *(["--json"] if as_json else [])) == 0
    shown = capsys.readouterr().out
    if as_json:
        assert json.loads(shown)["milliseconds"] == {
            "baseline": {str(case): 1.0 + i for i, case in enumerate(PRODUCTS)}
        }
    else:
        lines = shown.splitlines()
        assert max(map(len, lines)) <= 80
        assert any(line.split() == ["baseline", "1.00", "2.00", "3.00", "4.00", "5.00", "6.00"] for line in lines)
    assert run(monkeypatch) == 0
    assert "baseline is used: the fastest, as was measured here" in capsys.readouterr().out
    monkeypatch.delenv(VARIABLE)


def test_another_measurement_replaces_the_choice_of_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Cpu.here()
    all_flags = frozenset(flag for each in known(here) for flag in each.lacking)
    monkeypatch.setattr(Cpu, "here", lambda: here._replace(flags=all_flags))
    best = known(Cpu.here())[0].name
    choice.remember("baseline")
    monkeypatch.setattr(calibration, "calibrate", lambda _: Calibration({best: [1.0] * len(PRODUCTS)}, best))
    assert run(monkeypatch, "--measure", "--json") == 0
    assert json.loads(capsys.readouterr().out)["chosen"] == best
    monkeypatch.delenv(VARIABLE)
