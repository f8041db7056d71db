"""`faasmoe kernels`, for people and for programs."""

from __future__ import annotations

import json
import sys

import pytest

from faasmoe.cli import main as command
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.library import VARIABLE


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["faasmoe", "kernels", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs nothing but the baseline, whatever this machine has."""
    here = Cpu.here()
    monkeypatch.setattr(Cpu, "here", lambda: here._replace(model="Old 8", flags=frozenset()))
    monkeypatch.delenv(VARIABLE, raising=False)


def test_programs_read_which_sets_there_are_and_why_one_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["architecture"], facts["cpu"]) == (Cpu.here().architecture, "Old 8")
    assert (facts["chosen"], facts["reason"]) == ("baseline", "the best that runs here")
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
    assert out.rstrip().endswith("baseline is used: the best that runs here")


def test_a_set_that_is_named_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "baseline")
    assert run(monkeypatch, "--json") == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "FAASMOE_KERNELS=baseline"
    monkeypatch.setenv(VARIABLE, "avx1024")
    assert run(monkeypatch) == 2
    assert capsys.readouterr().err == "error: FAASMOE_KERNELS=avx1024: must be one of baseline, which run here\n"
