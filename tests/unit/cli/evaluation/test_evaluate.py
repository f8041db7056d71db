from __future__ import annotations

import json
from pathlib import Path

import pytest

from faasmoe.cli.evaluation.workloads import requests
from tests.unit.cli.commands import run as faasmoe
from tests.unit.evaluation.made import results, run


@pytest.fixture
def file(tmp_path: Path) -> str:
    made = results(*(run(name, n, nbytes + n) for n in range(3) for name, nbytes in
                     (("faasmoe-shared", 100_000_000), ("baseline", 1_000_000_000))))  # fmt: skip
    made.save(tmp_path / "results.json")
    return str(tmp_path / "results.json")


def test_claims(file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert faasmoe(monkeypatch, "evaluate", "claims", file, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts) == 9
    assert facts["memory_vs_baseline"]["reached"] is True
    assert facts["memory_vs_baseline"]["value"] == pytest.approx(0.1)
    assert facts["memory_vs_baseline"]["meter_share"] == pytest.approx(0.01)
    assert facts["pressure_vs_llamacpp"] == {
        "value": None, "low": None, "high": None, "trials": 0, "bound": 1.0, "at_least": True, "whole_interval": False,
        "reached": None,
        "extrapolated": False, "model": None, "results": None, "paper": None, "meter_share": None,
        "not_measured": "there is no run of: faasmoe evaluate pressure under 50 %",
        "bound_source": "llama.cpp is what users would run where memory is short",
    }  # fmt: skip
    assert faasmoe(monkeypatch, "evaluate", "claims", file) == 0
    shown = capsys.readouterr().out
    assert "reached" in shown
    assert "missed" in shown
    assert "pressure_vs_llamacpp is not measured: there is no run of" in shown
    assert "the meter took 1.0 % of a core on average and 1.0 % at most, within the limit of 3.0 %" in (
        " ".join(shown.split())
    )


def test_claims_of_several_files_say_what_measuring_took_of_each(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results(run("baseline", seconds=2.0)).save(tmp_path / "short.json")  # 0.1 s of CPU time
    assert faasmoe(monkeypatch, "evaluate", "claims", file, str(tmp_path / "short.json")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "memory_vs_baseline 0.100 0.100 to 0.100 3 ≤ 0.2 0.332 reached results" in shown
    assert "results: the meter took 1.0 % of a core on average" in shown
    assert "short: the meter took 5.0 % of a core on average and 5.0 % at most, beyond the limit of 3.0 %" in shown


def test_compare(file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert faasmoe(monkeypatch, "evaluate", "compare", file, file, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"][2] for row in rows} == {"faasmoe-shared", "baseline"}
    assert all(row["ratio"] is None or row["ratio"]["value"] == pytest.approx(1) for row in rows)
    assert not any(row["distinct"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["claims", "/gone"], "/gone: cannot be read"),
        (["strategies", "--strategy", "magic", "--out", "/gone"], "--strategy magic: must be one of"),
        (["strategies", "--workload", "poisson", "--rate", "1e-6", "--out", "/gone"], "has no request"),
    ],
)
def test_what_the_user_can_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert faasmoe(monkeypatch, "evaluate", *arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_results_of_another_model_are_not_mixed_in(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faasmoe(monkeypatch, "evaluate", "strategies", "--out", file) == 2
    assert "holds results of model, not faasmoe-demo" in " ".join(capsys.readouterr().err.split())


def test_tenants_that_do_not_ask_are_tenants_as_well() -> None:
    few = requests("bursty", rate=0.05, seconds=45.0).workload(6)
    assert len(few.tenants) == 6
    assert {ask.tenant for ask in few.asks(0)} == {"tenant-5"}
    assert few.lasts == 45
    many = requests("saturated", max_tokens=3).workload(1)
    assert (len(many.tenants), len(many.asks(0)), many.lasts) == (8, 40, 0)
