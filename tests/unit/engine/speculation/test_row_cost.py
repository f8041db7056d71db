from __future__ import annotations

import random

import pytest

from faasmoe.engine.speculation.row_cost import RowCost


def learnt(fixed: float, a_row: float, rows: list[int], steps: int = 300, noise: float = 0.0) -> RowCost:
    """From steps that take `fixed` seconds and `a_row` for each row."""
    cost, chance = RowCost(), random.Random(0)
    for i in range(steps):
        many = rows[i % len(rows)]
        cost.note(many, (fixed + a_row * many) * chance.uniform(1 - noise, 1 + noise))
    return cost


@pytest.mark.parametrize(("fixed", "a_row"), [(0.03, 0.001), (0.03, 0.03), (0.0, 0.02), (0.01, 0.0)])
def test_the_cost_of_a_row_is_learnt(fixed: float, a_row: float) -> None:
    cost = learnt(fixed, a_row, [1, 5, 1, 1, 9], noise=0.1)
    for rows in (1, 4, 16):
        assert cost.share(rows) == pytest.approx(rows * a_row / (fixed + rows * a_row), abs=0.1)


def test_until_steps_differ_in_rows_a_guess_is_taken() -> None:
    assert RowCost().share(1) == pytest.approx(0.3)
    assert learnt(0.02, 0.01, [1]).share(1) == pytest.approx(0.3)
    assert learnt(0.02, 0.01, [4]).share(4) == pytest.approx(0.3)


def test_one_step_with_a_draft_tells() -> None:
    cost = learnt(0.01, 0.03, [1])
    cost.note(6, 0.01 + 6 * 0.03)
    assert cost.share(1) > 0.6
    for _ in range(300):  # and is forgotten, so that another is tried
        cost.note(1, 0.04)
    assert cost.share(1) == pytest.approx(0.3, abs=0.05)


def test_an_interruption_says_little_about_rows() -> None:
    cost = learnt(0.02, 0.001, [1, 5])
    before = cost.share(1)
    cost.note(5, 3.0)
    assert cost.share(1) == pytest.approx(before, abs=0.15)
    for _ in range(100):
        cost.note(1, 0.021)
        cost.note(5, 0.025)
    assert cost.share(1) == pytest.approx(before, abs=0.02)


def test_shares_are_shares_whatever_the_times() -> None:
    chance, cost = random.Random(2), RowCost()
    for _ in range(2000):
        cost.note(chance.randrange(1, 65), chance.choice([1e-6, 0.01, 5.0]))
        assert 0 <= cost.share(chance.randrange(1, 65)) <= 1 + 1e-9
