from __future__ import annotations

from collections import Counter

import pytest

from faasmoe.evaluation.overhead import break_even, milliseconds_a_token
from faasmoe.evaluation.strategies.engine import parts_of_steps
from tests.unit.evaluation.made import run


def test_parts_of_a_step_add_up_to_it() -> None:
    counted = Counter({"forward": 10.0, "schedule": 0.5, "sample": 0.3, "account": 0.2, "pack": 1.0, "route": 0.4,
                       "invoke": 5.0, "queue": 0.5, "compute": 3.0, "combine": 0.7})  # fmt: skip
    parts = parts_of_steps(counted)
    assert tuple(parts) == (
        "dense", "routing", "packing", "transfer", "queue", "compute", "combine", "sampling", "scheduling", "accounting"
    )  # fmt: skip
    assert sum(parts.values()) == pytest.approx(11)
    assert parts["dense"] == pytest.approx(3.3)
    assert parts["transfer"] == pytest.approx(1.5)
    made = run("x", phases=parts)
    assert milliseconds_a_token(made)["dense"] == pytest.approx(3300 / 20)


def test_idling_costs_more_than_a_cold_start_after_a_while() -> None:
    phases = {"fork": (4, 0.02), "map": (4, 0.06), "first_touch": (2, 0.04)}
    made = run("x", memory=3_000_000, cold_start_phases=phases, instances=4)
    made.usage.pss["instances"] = [0, 1_000_000]
    found = break_even(made)
    assert found is not None
    assert found.alone == pytest.approx(0.04)
    assert found.while_all_wait == pytest.approx(0.04 * 4_000_000 / 250_000)
    assert break_even(run("shared-full")) is None
