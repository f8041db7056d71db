from __future__ import annotations

import pytest

from faasmoe.evaluation.compare import compare, figures_of
from tests.unit.evaluation.made import results, run


def test_what_both_have_is_compared() -> None:
    before = results(*(run("baseline", n, 1_000_000_000 + n) for n in range(3)), run("shared-full"))
    after = results(*(run("baseline", n, 2_000_000_000 + n) for n in range(3)), run("faasmoe-shared"))
    found = {one.figure: one for one in compare(before, after)}
    assert {one.kind[2] for one in found.values()} == {"baseline"}
    assert found["memory_mean_bytes"].ratio.value == pytest.approx(2)
    assert found["memory_mean_bytes"].distinct
    assert not found["tokens_per_second"].distinct


def test_runs_with_other_settings_are_other_runs() -> None:
    before, after = results(run("baseline")), results(run("baseline", settings={"block_size": 20}))
    assert compare(before, after) == []


def test_figures_are_means_over_trials() -> None:
    ((kind, figures),) = figures_of(results(run("baseline", 0, 1_000_000_000), run("baseline", 1, 3_000_000_000)))
    assert kind[:4] == ("strategies", "paper", "baseline", 6)
    assert figures["memory_mean_bytes"].value == pytest.approx(2e9)
    assert figures["memory_mean_bytes"].trials == 2


def test_runs_without_answers_have_no_figures_of_latency() -> None:
    ((_, figures),) = figures_of(results(run("baseline", requests=[])))
    assert "end_to_end_p50" not in figures
    assert "cpu_seconds_per_token" not in figures
    assert figures["cpu_percent"].value == pytest.approx(50)
