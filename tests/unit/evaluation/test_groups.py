from __future__ import annotations

import pytest

from faasmoe.evaluation.groups import groups_of, names
from tests.unit.evaluation.made import results, run


def test_figures_are_means_over_trials() -> None:
    (group,) = groups_of(results(run("baseline", 0, 1_000_000_000), run("baseline", 1, 3_000_000_000)))
    assert group.kind[:4] == ("strategies", "paper", "baseline", 6)
    memory = group.figure("memory_mean_bytes")
    assert memory.value == pytest.approx(2e9)
    assert memory.trials == 2
    assert not group.extrapolated


def test_runs_without_answers_have_no_figures_of_latency() -> None:
    (group,) = groups_of(results(run("baseline", requests=[])))
    assert group.figure("end_to_end_p50") is None
    assert group.figure("cpu_seconds_per_token") is None
    assert group.figure("cpu_percent").value == pytest.approx(50)


def test_groups_are_called_by_what_they_differ_in() -> None:
    sizes = [run("faasmoe-shared", settings={"block_size": size, "seed": 0}) for size in (10, 20)]
    kinds = [group.kind for group in groups_of(results(*sizes, run("baseline")))]
    assert names(kinds) == [
        "strategies, paper, faasmoe-shared, 6 tenants, block_size 10",
        "strategies, paper, faasmoe-shared, 6 tenants, block_size 20",
        "strategies, paper, baseline, 6 tenants",
    ]
