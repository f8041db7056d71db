from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.results import FIGURES, Results
from faasmoe.evaluation.strategies.protocol import Answered
from tests.unit.evaluation.made import results, run


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    made = results(run("baseline"), run("shared-full", 1))
    made.save(file)
    again = Results.load(file)
    assert again == made
    assert again.machine["cores"] >= 1
    assert again.versions["torch"]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("field", "changes", "said"),
    [
        ("machine", {"cpu": "an abacus"}, "a machine with cpu an abacus, not"),
        ("machine", {"cores": 99}, "a machine with cores 99"),
        ("versions", {"torch": "0.1"}, "software with torch 0.1"),
    ],
)
def test_results_of_elsewhere_are_not_gone_on_with(field: str, changes: dict[str, object], said: str) -> None:
    made = results(run("baseline"))
    made.machine["kernel"] = "an older one"
    made.check_origin(Path("results.json"))
    setattr(made, field, {**getattr(made, field), **changes})
    with pytest.raises(OptionError, match=f"--out results.json: holds results of {said}"):
        made.check_origin(Path("results.json"))


def test_figures_of_a_run() -> None:
    figures = {name: figure(run("x")) for name, figure in FIGURES.items()}
    assert figures["memory_mean_bytes"] == figures["memory_peak_bytes"] == pytest.approx(1e9)
    assert figures["page_cache_bytes"] == pytest.approx(700)
    assert figures["gb_seconds"] == pytest.approx(10)
    assert figures["cpu_percent"] == pytest.approx(50)
    assert figures["cpu_seconds_per_token"] == pytest.approx(5 / 20)
    assert figures["tokens_per_second"] == pytest.approx(2)
    assert figures["invocations_per_token"] == pytest.approx(2)
    assert figures["first_token_p50"] == pytest.approx((1.0 + 0.5) / 2)
    assert figures["token_p50"] == pytest.approx((0.2 + 7.5 / 8) / 2)
    assert figures["end_to_end_p99"] == pytest.approx(8, abs=0.1)


def test_the_page_cache_is_averaged_over_time() -> None:
    """However unevenly it was asked: here it holds 1000 bytes for eight seconds of ten."""
    usage = replace(run("x").usage, resident_times=[0.0, 1.0, 1.5, 2.0, 10.0],
                    resident={"weights": [0, 0, 0, 1000, 1000]})  # fmt: skip
    assert FIGURES["page_cache_bytes"](run("x", usage=usage)) == pytest.approx(825)
    usage = replace(usage, resident_times=[0.0], resident={"weights": [7]})
    assert FIGURES["page_cache_bytes"](run("x", usage=usage)) == 7


def test_fewer_tenants_tell_of_memory_and_of_processor_time_only() -> None:
    made = run("baseline", extrapolated=True, measured_tenants=2)
    assert FIGURES["memory_mean_bytes"](made) == FIGURES["memory_peak_bytes"](made) == pytest.approx(3e9)
    assert FIGURES["gb_seconds"](made) == pytest.approx(30)
    assert FIGURES["cpu_seconds_per_token"](made) == pytest.approx(5 / 20)
    for name in ("tokens_per_second", "cpu_percent", "end_to_end_p95", "first_token_p50", "token_p99"):
        with pytest.raises(ValueError, match="can be extrapolated"):
            FIGURES[name](made)


def test_answers_that_came_at_once_tell_nothing_of_their_first_token() -> None:
    at_once = [
        Answered(tenant="a", asked=float(n), first=n + 2.0, end=n + 2.0, prompt_tokens=7, tokens=9)
        for n in range(5)
    ]
    made = run("faasmoe-shared", requests=at_once)
    assert FIGURES["end_to_end_p50"](made) == pytest.approx(2)
    for name in ("first_token_p50", "token_p95"):
        with pytest.raises(ValueError, match="5 of 5 answers"):
            FIGURES[name](made)
    single = [Answered(tenant="a", asked=0.0, first=2.0, end=2.0, prompt_tokens=7, tokens=1)]
    assert FIGURES["first_token_p50"](run("faasmoe-shared", requests=single)) == pytest.approx(2)


@pytest.mark.parametrize("content", ["", "{}", '{"command": 3}', "[1]"])
def test_other_files_are_no_results(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(OptionError, match="holds no results"):
        Results.load(file)


def test_later_formats_and_missing_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results().save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(OptionError, match="is of format 2, this version reads 1"):
        Results.load(file)
    with pytest.raises(OptionError, match="cannot be read"):
        Results.load(tmp_path / "gone")
