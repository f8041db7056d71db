from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.experiment import Experiment, weights
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.workloads.paper import paper
from tests.unit.evaluation.made import results, run


def experiment(*strategies: str, trials: int = 3, tenants: int = 2) -> Experiment:
    orders = Orders("", "/model", tuple(f"t{n}" for n in range(tenants)))
    names = strategies or ("baseline", "shared-full", "faasmoe-shared")
    return Experiment(orders, names, lambda seed: list(paper(seed=seed)), "paper", {"block_size": 10}, trials)


def test_every_strategy_runs_in_every_trial_in_random_order() -> None:
    order = list(experiment(trials=20).left(results()))
    assert len(set(order)) == len(order) == 60
    assert [trial for trial, _ in order] == sorted(trial for trial, _ in order)
    assert len({strategy for trial, strategy in order[::3]}) > 1
    assert order == list(experiment(trials=20).left(results()))


def test_what_is_there_is_not_run_again() -> None:
    left = list(experiment().left(results(run("baseline", 0), run("shared-full", 2))))
    assert len(left) == 7
    assert (0, "baseline") not in left


def test_other_settings_are_not_mixed_in() -> None:
    there = results(run("baseline", settings={"block_size": 20}))
    with pytest.raises(OptionError, match="holds runs of paper with block_size 20, not 10"):
        list(experiment().left(there))
    assert len(list(experiment().left(results(run("baseline", workload="poisson", settings={}))))) == 9


def test_what_memory_cannot_hold_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--strategy baseline: 2 full models take 2\d+\.\d GB"):
        experiment().check_fits(10**14)
    experiment("shared-full").check_fits(10**14)
    experiment().check_fits(1000)


def test_unknown_strategies_are_refused() -> None:
    with pytest.raises(
        OptionError, match="--strategy magic: there are baseline, shared-full, local-distribution, faasmoe-shared"
    ):
        experiment("magic")


def test_weights_are_the_checkpoints_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    assert weights(str(tmp_path)) == {"weights": [(str(tmp_path / "model.safetensors"), 0, 100)]}
    monkeypatch.setattr("os.access", lambda *_: False)
    assert weights(str(tmp_path)) == {}
