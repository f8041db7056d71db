from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from faasmoe.errors import MeasurementError, OptionError
from faasmoe.evaluation import experiment as module
from faasmoe.evaluation.experiment import Case, Experiment, Workload, left_out, weights
from faasmoe.evaluation.results import Results
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.workloads.ask import Ask
from tests.unit.evaluation.made import results, run

ALL = ("baseline", "shared-full", "faasmoe-shared")


def paper(tenants: int) -> Workload:
    names = [f"t{n}" for n in range(tenants)]
    return Workload("paper", names, lambda seed: [Ask(None, name, seed + 1, 1) for name in names])


def case(strategy: str, tenants: int = 6, **settings: int) -> Case:
    workload = paper(tenants)
    return Case(
        Orders(strategy=strategy, model="/model", tenants=tuple(workload.tenants)),
        workload,
        {"block_size": 10, **settings},
    )


def experiment(*cases: Case, trials: int = 3, varied: Sequence[str] = ()) -> Experiment:
    return Experiment(name="strategies", cases=cases or [case(each) for each in ALL], trials=trials, varied=varied)


def left(what: Experiment, there: Results) -> list[tuple[int, str]]:
    return [(trial, case.orders.strategy) for trial, case in what.left(there)]


def test_every_case_runs_in_every_trial_in_random_order() -> None:
    order = left(experiment(trials=20), results())
    assert len(set(order)) == len(order) == 60
    assert [trial for trial, _ in order] == sorted(trial for trial, _ in order)
    assert len({strategy for trial, strategy in order[::3]}) > 1
    assert order == left(experiment(trials=20), results())


def test_what_is_there_is_not_run_again() -> None:
    there = results(run("baseline", 0), run("shared-full", 2), run("faasmoe-shared", 0, experiment="blocks"))
    order = left(experiment(), there)
    assert len(order) == 7
    assert (0, "baseline") not in order
    sizes = [case("faasmoe-shared", block_size=size) for size in (10, 20)]
    more = left(experiment(*sizes, varied=["block_size"]), results(run("faasmoe-shared", 1)))
    assert len(more) == 5  # of the other size is another case


def test_other_settings_are_not_mixed_in() -> None:
    there = results(run("baseline", settings={"block_size": 20}))
    with pytest.raises(OptionError, match="holds runs of paper with block_size 20, not 10"):
        left(experiment(), there)
    assert len(left(experiment(), results(run("baseline", workload="poisson", settings={})))) == 9


def test_what_is_not_possible_is_left_out() -> None:
    there = results()
    there.left_out.append(left_out("strategies", case("baseline"), "too large"))
    assert len(left(experiment(), there)) == 6


def test_a_failure_is_a_result_where_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MeasurementError("it has died")

    monkeypatch.setattr(module.Experiment, "_run", fails)
    there, free = results(), case("baseline")
    with pytest.raises(MeasurementError):
        experiment().add(0, free, there)
    limited = replace(free, memory_limit=1 << 30)
    experiment(limited).add(0, limited, there)
    assert [(one.strategy, one.reason) for one in there.left_out] == [("baseline", "it has died")]
    assert left(experiment(limited), there) == []


def test_only_tenants_that_are_run_ask() -> None:
    whole = case("baseline")
    fewer = replace(whole, orders=case("baseline", tenants=2).orders, measured=2)
    assert len(whole.asks(0)) == 6
    assert [ask.tenant for ask in fewer.asks(0)] == ["t0", "t1"]


def test_weights_are_the_checkpoints_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    assert weights(str(tmp_path)) == {"weights": [(str(tmp_path / "model.safetensors"), 0, 100)]}
    monkeypatch.setattr("os.access", lambda *_: False)
    assert weights(str(tmp_path)) == {}
