"""`faasmoe kernels`, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faasmoe.cli.kernels import cache, calibration
from faasmoe.experts.calibrator import PRODUCTS
from faasmoe.experts.formats import conversions
from faasmoe.experts.kernels.calibration import BFLOAT16, ONEDNN, Calibration, Measurement
from faasmoe.experts.kernels.choice import VARIABLE
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import known
from faasmoe.util.folders.user_cache import CACHE
from tests.unit.cli.commands import run

FORMATS = [BFLOAT16, *conversions()]
UNMEASURED = "the best by the CPU's flags, nothing was measured"


def measured(times: dict[str, float], onednn: float | None = None) -> Calibration:
    """The same times with all products, and oneDNN's where it is measured."""
    return Calibration(
        [
            Measurement(
                format,
                rows,
                source,
                times | ({ONEDNN: onednn} if onednn and rows >= 64 and format == BFLOAT16 else {}),
            )
            for format in FORMATS
            for rows, source in PRODUCTS
        ],
        2.345,
    )


@pytest.fixture(autouse=True)
def old_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that runs nothing but the baseline, whatever this machine has."""
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    here = Cpu.here()
    monkeypatch.setattr(Cpu, "here", lambda: here._replace(model="Old 8", flags=frozenset()))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def new_cpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One that runs everything; the names of its instruction sets."""
    here = Cpu.here()
    flags = frozenset(flag for each in known(here) for flag in each.lacking)
    monkeypatch.setattr(Cpu, "here", lambda: here._replace(model="New 9, microcode 0xa101154", flags=flags))
    return [each.name for each in known(Cpu.here())]


def test_programs_read_which_sets_there_are_and_why_one_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "kernels", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["architecture"], facts["cpu"]) == (Cpu.here().architecture, "Old 8")
    assert facts["used"] == {format: {"instruction_set": "baseline", "onednn_rows": None} for format in FORMATS}
    assert (facts["reason"], facts["calibration"]) == (UNMEASURED, None)
    *better, baseline = facts["instruction_sets"]
    assert baseline == {"name": "baseline", "built": True, "lacking": []}
    assert all(each["built"] and each["lacking"] for each in better)


def test_people_see_a_table_in_which_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "kernels") == 0
    out = capsys.readouterr().out
    assert "Old 8" in out
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[-1] == f"baseline is used: {UNMEASURED}"


def test_a_set_that_is_named_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new_cpu: list[str]
) -> None:
    cache.remember(measured({name: 1.0 + i for i, name in enumerate(new_cpu)}))
    monkeypatch.setenv(VARIABLE, "baseline")
    assert run(monkeypatch, "kernels", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["reason"] == "FAASMOE_KERNELS=baseline"
    assert {its["instruction_set"] for its in facts["used"].values()} == {"baseline"}
    assert run(monkeypatch, "kernels") == 0
    assert capsys.readouterr().out.endswith(": FAASMOE_KERNELS=baseline\n")
    monkeypatch.setenv(VARIABLE, "avx1024")
    assert run(monkeypatch, "kernels") == 2
    expected = f"error: FAASMOE_KERNELS=avx1024: must be one of {', '.join(new_cpu)}, which run here\n"
    assert capsys.readouterr().err == expected


def test_what_was_measured_is_shown_at_80_columns_and_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new_cpu: list[str]
) -> None:
    times = {name: 100.25 - 10 * i for i, name in enumerate(new_cpu)}
    cache.remember(measured(times, onednn=0.0123))
    assert run(monkeypatch, "kernels") == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    cells = [line.split() for line in lines]
    assert ["weights", "rows", "from", *new_cpu, ONEDNN] in cells
    for format in FORMATS:
        for rows, source in PRODUCTS:
            onednn = ["0.0123"] if format == BFLOAT16 and rows >= 64 else []
            assert [format, str(rows), source, *(f"{time:.3g}" for time in times.values()), *onednn] in cells
    assert "measured in 2.3 s" in out
    assert "oneDNN is used for 64 rows and more with weights of the dense part in bfloat16" in lines
    assert lines[-1] == "baseline is used: the fastest, as was measured here"


def test_programs_read_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.remember(measured({"baseline": 3.5}))
    assert run(monkeypatch, "kernels", "--json") == 0
    found = json.loads(capsys.readouterr().out)["calibration"]
    assert found["seconds"] == 2.345
    assert found["measurements"][0] == {
        "format": "bfloat16",
        "rows": 1,
        "source": "memory",
        "milliseconds": {"baseline": 3.5},
    }
    assert len(found["measurements"]) == len(FORMATS) * len(PRODUCTS)


def test_formats_may_be_computed_by_different_sets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new_cpu: list[str]
) -> None:
    best = new_cpu[0]
    times = dict.fromkeys(new_cpu, 2.0)
    its = [
        Measurement(format, 1, "memory", times | {"baseline": 1.0 if format == "int8" else 2.0})
        for format in FORMATS
    ]
    cache.remember(Calibration(its, 1.0))
    assert run(monkeypatch, "kernels") == 0
    lines = capsys.readouterr().out.splitlines()
    others = ", ".join(format for format in FORMATS if format != "int8")
    assert f"{best} is used for {others}" in lines
    assert lines[-1] == "baseline is used for int8: the fastest, as was measured here"


def test_it_measures_when_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new_cpu: list[str]
) -> None:
    cache.remember(measured({name: 1.0 + i for i, name in enumerate(reversed(new_cpu))}))
    again = measured({name: 1.0 + i for i, name in enumerate(new_cpu)})
    monkeypatch.setattr(calibration, "measure", lambda: again)
    assert run(monkeypatch, "kernels", "--measure", "--json") == 0
    assert json.loads(capsys.readouterr().out)["used"][BFLOAT16]["instruction_set"] == new_cpu[0]
