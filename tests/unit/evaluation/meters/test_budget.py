from __future__ import annotations

import pytest

from faasmoe.evaluation.meters.budget import MeterBudget
from tests.unit.evaluation.meters.played import Clocks


def test_a_share_of_the_time_may_be_used() -> None:
    clocks = Clocks()
    budget = MeterBudget(0.02, 1.0, clocks.now, clocks.used)
    assert budget.left() == 0
    clocks.wall = 10.0
    assert budget.left() == pytest.approx(0.2)
    clocks.cpu = 0.05
    assert budget.left() == pytest.approx(0.15)
    assert budget.used == pytest.approx(0.05)


def test_what_was_used_too_much_has_to_be_earned() -> None:
    clocks = Clocks()
    budget = MeterBudget(0.02, 1.0, clocks.now, clocks.used)
    clocks.cpu = 0.04
    assert budget.left() == pytest.approx(-0.04)
    clocks.wall = 2.0
    assert budget.left() == pytest.approx(0)


def test_only_so_much_is_saved() -> None:
    clocks = Clocks()
    budget = MeterBudget(0.02, 0.1, clocks.now, clocks.used)
    clocks.wall = 3600.0
    assert budget.left() == pytest.approx(0.1)
    clocks.cpu = 0.1
    assert budget.left() == pytest.approx(0)
