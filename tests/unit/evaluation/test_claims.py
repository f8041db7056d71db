from __future__ import annotations

from collections.abc import Sequence

import pytest

from faasmoe.evaluation.claims import CLAIMS, judge
from tests.unit.evaluation.made import results, run


def verdicts(*runs):
    return {verdict.claim.key: verdict for verdict in judge({"made": results(*runs)})}


def test_there_is_a_claim_for_each_key() -> None:
    assert [claim.key for claim in CLAIMS] == [
        "memory_vs_baseline", "cpu_vs_baseline", "memory_vs_local_distribution", "private_vs_shared_memory",
        "peak_memory_vs_shared_full", "bursty_memory_vs_shared_full", "bursty_p95_vs_shared_full",
        "pressure_vs_llamacpp", "throughput_vs_shared_full",
    ]  # fmt: skip


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert all(verdict.reached is None for verdict in verdicts(run("faasmoe-shared")).values())


def test_pairs_of_trials_are_compared() -> None:
    runs = [
        run(strategy, trial, memory * (trial + 1))
        for trial in range(3)
        for strategy, memory in (("faasmoe-shared", 150_000_000), ("baseline", 1_000_000_000))
    ]
    found = verdicts(*runs)
    memory = found["memory_vs_baseline"]
    assert memory.reached is True
    assert memory.estimate.value == pytest.approx(0.15)
    assert memory.estimate.low == pytest.approx(0.15)  # trials differ, pairs do not
    assert found["cpu_vs_baseline"].reached is False
    assert found["cpu_vs_baseline"].estimate.value == pytest.approx(1)


def test_only_runs_of_the_claims_workload_and_tenants_count() -> None:
    other = [run("faasmoe-shared", tenants=2), run("baseline", tenants=2)]
    assert verdicts(*other)["memory_vs_baseline"].reached is None
    bursts = [run(name, workload="bursty", tenants=3) for name in ("faasmoe-shared", "shared-full")]
    found = verdicts(*bursts)
    assert found["bursty_memory_vs_shared_full"].reached is False
    assert found["bursty_p95_vs_shared_full"].reached is True
    assert found["peak_memory_vs_shared_full"].reached is None


@pytest.mark.parametrize(("memory", "reached"), [((0.40, 0.41, 0.42), True), ((0.30, 0.40, 0.50), False)])
def test_all_of_an_interval_must_meet_a_bound_that_says_so(memory: Sequence[float], reached: bool) -> None:
    runs = [
        run(strategy, trial, round(1e9 * share), workload="bursty", tenants=3)
        for trial, ours in enumerate(memory)
        for strategy, share in (("faasmoe-shared", ours), ("shared-full", 1))
    ]
    verdict = verdicts(*runs)["bursty_memory_vs_shared_full"]
    assert verdict.estimate.value < verdict.claim.bound
    assert verdict.reached is reached


def test_claims_of_least_values_and_extrapolations() -> None:
    runs = [
        run("faasmoe-shared", workload="saturated", seconds=10),
        run("shared-full", workload="saturated", seconds=8),
    ]
    verdict = verdicts(*runs)["throughput_vs_shared_full"]
    assert verdict.estimate.value == pytest.approx(0.8)
    assert verdict.reached is False
    runs = [run("faasmoe-shared"), run("baseline", extrapolated=True)]
    assert verdicts(*runs)["memory_vs_baseline"].extrapolated


def test_the_first_results_that_have_a_claims_strategies_answer() -> None:
    half = results(run("faasmoe-shared"))
    first, second = (
        results(run("faasmoe-shared", memory=memory), run("baseline", memory=100)) for memory in (20, 30)
    )
    first.model = "first"
    verdict = judge({"half": half, "first-file": first, "second-file": second})[0]
    assert verdict.model == "first"
    assert verdict.file == "first-file"
    assert verdict.estimate.value == pytest.approx(0.2)
    assert verdict.word == "reached"


def test_a_strategy_that_has_answered_nothing_is_not_measured() -> None:
    found = verdicts(run("faasmoe-shared"), run("baseline", requests=[]))
    assert found["cpu_vs_baseline"].word == "not measured"
    assert found["memory_vs_baseline"].word == "missed"


def test_what_is_missing_is_said() -> None:
    two = [run("faasmoe-shared", tenants=2), run("baseline", tenants=2)]
    assert verdicts(*two)["memory_vs_baseline"].why == (
        "6 tenants are wanted, and runs of faasmoe-shared have 2, and "
        "6 tenants are wanted, and runs of baseline have 2"
    )
    assert verdicts(run("faasmoe-shared"))["memory_vs_baseline"].why == "there is no run of baseline"
    none = verdicts(run("faasmoe-shared"))
    assert none["bursty_p95_vs_shared_full"].why == (
        "there is no run of: faasmoe evaluate strategies --workload bursty"
    )
    assert none["pressure_vs_llamacpp"].why == "there is no run of: faasmoe evaluate pressure under 50 %"
    silent = verdicts(run("faasmoe-shared"), run("baseline", requests=[]))
    assert silent["cpu_vs_baseline"].why == "a run has no responses to compare"


def test_the_papers_own_figures_are_of_its_table() -> None:
    papers = {claim.key: claim.paper for claim in CLAIMS if claim.paper}
    assert {key: round(value, 3) for key, value in papers.items()} == {
        "memory_vs_baseline": 0.332, "cpu_vs_baseline": 0.290, "memory_vs_local_distribution": 1.434,
        "private_vs_shared_memory": 1.260,
    }  # fmt: skip
    assert all(claim.source for claim in CLAIMS)


def test_a_verdict_says_what_measuring_took() -> None:
    found = verdicts(run("faasmoe-shared", seconds=10.0), run("baseline", seconds=5.0))  # 0.1 s of CPU time each
    assert found["memory_vs_baseline"].meter_share == pytest.approx(0.015)
    assert found["pressure_vs_llamacpp"].meter_share is None
