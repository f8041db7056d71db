"""`simulated.json` has what the simulation gave when it was written in Python and compiled by numba."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faasmoe.planner import simulation
from faasmoe.planner.routing import GRID
from faasmoe.planner.simulation import Costs, SimulatedRequests, SimulatedRun, SimulationLimits, simulate
from tests.instruction_sets import on_each

instruction_set = on_each(simulation)
RECORDED = json.loads(Path(__file__).with_name("simulated.json").read_text())


def load(seed: int) -> dict[str, Any]:
    """Operands of `simulate`: some open, some closed loops, for several orchestrators."""
    random = np.random.default_rng(seed)
    count = 12
    times, after = np.sort(random.uniform(0, (0.1, 5, 60)[seed % 3], count)), np.full(count, -1)
    engine = random.integers(0, 1 + seed % 4, count)
    if seed % 2:
        times[:], last = 0, {}
        for number, its in enumerate(engine.tolist()):
            after[number] = last.get(its, -1)
            last[its] = number
    prompt, answer = random.integers(1, 700, count), random.integers(1, 100, count)
    apart, together = 720 * 0.97**GRID, 720 * 0.985**GRID
    costs = Costs(
        functions=apart, functions_together=together, alike=np.interp(-together, -apart, GRID),
        experts=1440 * 0.93**GRID, busiest=1440 * 0.93**GRID, split=1.7, layers=24, fixed_seconds=0.004,
        expert_seconds=0.0005, token_seconds=0.001, wire_seconds=0.0, call_seconds=0.0002, sequence_seconds=0.0007,
        cold_seconds=0.02, cold_serial_seconds=0.004, cores=2,
    )  # fmt: skip
    limits = SimulationLimits(int(random.integers(2, 9)), 200, int(random.integers(16, 129)))
    return {
        "requests": SimulatedRequests(times, engine, prompt, answer, after),
        "costs": costs,
        "limits": limits,
        "keep_alive": (0.5, 5.0)[seed % 2],
        "window": (np.inf, 300.0, 0.0)[seed % 3],
    }


def told(run: SimulatedRun) -> dict[str, Any]:
    """What is compared: all about requests, and sums over steps."""
    steps = {name: getattr(run, name) for name in SimulatedRun.__dataclass_fields__ if name.startswith("step_")}
    return {
        **{name: getattr(run, name).tolist() for name in ("asked", "first", "end")},
        **{name: float(column.sum()) for name, column in steps.items()},
        "steps": len(run.step_end),
        "saturated": run.saturated,
    }


@pytest.mark.parametrize("seed", range(len(RECORDED)))
def test_it_gives_what_it_always_gave(seed: int) -> None:
    got = told(simulate(**load(seed)))
    assert got.keys() == RECORDED[seed].keys()
    for name, recorded in RECORDED[seed].items():
        assert got[name] == pytest.approx(recorded, rel=1e-12), name  # C libraries differ in a last bit of exp


def test_steps_last_as_long_as_the_busiest_node_and_the_wire() -> None:
    operands = load(0)
    costs = replace(operands["costs"], token_seconds=0.0)
    plain = simulate(**operands | {"costs": costs})
    uneven = simulate(**operands | {"costs": replace(costs, busiest=2 * costs.busiest, expert_seconds=0.00025)})
    np.testing.assert_allclose(uneven.step_end, plain.step_end)
    wired = simulate(**operands | {"costs": replace(costs, wire_seconds=0.002)})
    assert wired.step_seconds[0] == pytest.approx(plain.step_seconds[0] + 0.002 * plain.step_tokens[0])


def test_it_gives_up_when_too_many_run() -> None:
    count = 5000
    same = (np.full(count, number) for number in (0, 5, 3, -1))
    operands = load(0) | {"requests": SimulatedRequests(np.zeros(count), *same)}
    run = simulate(**operands)
    assert run.saturated
    assert len(run.step_end) == 0


def test_arrays_of_another_kind_are_refused() -> None:
    operands = load(0)
    short, whole = operands["costs"].functions[1:], operands["requests"].engine.astype(np.int32)
    with pytest.raises(ValueError, match="of float64 instead of"):
        simulate(**operands | {"costs": replace(operands["costs"], functions=short)})
    with pytest.raises(ValueError, match=r"an array \(12,\) of int32 instead of 12 int64"):
        simulate(**operands | {"requests": replace(operands["requests"], engine=whole)})
