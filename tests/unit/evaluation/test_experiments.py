from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation import experiments
from faasmoe.evaluation.experiments import Base
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.strategies.registry import STRATEGIES
from faasmoe.evaluation.workloads.ask import Ask
from tests.unit.evaluation.made import results
from tests.unit.evaluation.test_experiment import paper


@pytest.fixture
def base(tmp_path: Path) -> Base:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    return Base(
        name="model",
        orders=Orders(strategy="", model=str(tmp_path), tenants=(), keep_alive=60.0),
        settings={"max_tokens": 3},
        trials=2,
    )


def test_strategies_differ_in_nothing_else(base: Base) -> None:
    found = experiments.strategies(base, STRATEGIES, paper, 6)
    assert [case.orders.strategy for case in found.cases] == list(STRATEGIES)
    assert {case.tenants for case in found.cases} == {6}
    assert {case.orders.tenants for case in found.cases} == {tuple(f"t{n}" for n in range(6))}
    with pytest.raises(
        OptionError, match="--strategy magic: must be one of baseline, shared-full, local-distribution"
    ):
        experiments.strategies(base, ["magic"], paper, 6)


def test_blocks_and_keep_alives_are_among_the_settings(base: Base) -> None:
    sizes = experiments.blocks(base, [1, 60], paper, 2)
    assert [(case.orders.block_size, case.settings["block_size"]) for case in sizes.cases] == [(1, 1), (60, 60)]
    assert sizes.varied == ("block_size",)
    kept = experiments.keepalive(base, [1.0, 9.0], paper, 2)
    assert [(case.orders.strategy, case.orders.keep_alive) for case in kept.cases] == [
        ("faasmoe-shared", 1.0), ("faasmoe-shared", 9.0), ("shared-full", 60.0),
    ]  # fmt: skip
    assert len(list(kept.left(results()))) == 6


def test_tenants_that_memory_cannot_hold_are_left_out(base: Base) -> None:
    found = experiments.tenants(base, [1, 10**6], ["baseline", "shared-full"], paper)
    assert [(case.orders.strategy, case.tenants) for case in found.cases] == [
        ("baseline", 1), ("shared-full", 1), ("shared-full", 10**6),
    ]  # fmt: skip
    assert [(one.strategy, one.tenants) for one in found.left_out] == [("baseline", 10**6)]
    assert "GB are free" in found.left_out[0].reason


def test_pressure_limits_everything(base: Base) -> None:
    base = Base(name="model", orders=base.orders, settings={}, trials=1)
    Path(base.orders.model, "model.safetensors").write_bytes(b"")
    with Path(base.orders.model, "model.safetensors").open("r+b") as file:
        file.truncate(4 << 30)  # takes no room
    ask = Ask(None, "one", 16, 32)
    found = experiments.pressure(base, [50], experiments.PRESSURE, ask, ask)
    assert {case.memory_limit for case in found.cases} == {2 << 30}
    assert {case.workload.name for case in found.cases} == {"50 %"}
    assert {case.orders.memory_limit for case in found.cases} == {2 << 30}
    assert [case.orders.strategy for case in found.cases] == list(experiments.PRESSURE)
    for wrong in (lambda: experiments.pressure(base, [0], ["llama.cpp"], ask, ask),
                  lambda: experiments.pressure(base, [50], ["baseline"], ask, ask)):  # fmt: skip
        with pytest.raises(OptionError, match=r"--percent 0|--strategy baseline"):
            wrong()
