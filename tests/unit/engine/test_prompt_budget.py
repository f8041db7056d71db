from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.engine.prompt_budget import PromptBudget
from faasmoe.engine.scheduler import Scheduler
from faasmoe.protocol.config import EngineOptions
from tests.unit.engine.sequences import ended, run, sequence

TARGET, MOST = 0.3, 1024


def play(budget: PromptBudget, fixed: float, a_token: float, steps: int, noise: float = 0.0) -> list[int]:
    """Budgets of steps that use all of them, each of which takes `fixed` seconds and `a_token` for each token."""
    chance, budgets = random.Random(1), []
    for _ in range(steps):
        budgets.append(budget.tokens)
        seconds = fixed + a_token * budget.tokens
        budget.note(budget.tokens, seconds * chance.uniform(1 - noise, 1 + noise), beside_decodes=True)
    return budgets


@given(st.floats(0, 0.25), st.floats(1e-5, 0.1))
def test_steps_come_to_the_target_from_one_side(fixed: float, a_token: float) -> None:
    right = min(max((TARGET - fixed) / a_token, 64), MOST)
    budgets = play(PromptBudget(TARGET, MOST), fixed, a_token, 120)  # an error loses a twelfth a step at least
    # Steps have whole tokens: one with t tokens asks for (right - t) * (TARGET - fixed) / TARGET * t / right more, at
    # most, which may be less than one.
    assert budgets[-1] == pytest.approx(right, rel=0.005, abs=TARGET / (TARGET - fixed) * right / budgets[-1])
    assert budgets == sorted(budgets) or budgets == sorted(budgets, reverse=True)


@given(st.floats(0.05, 0.2), st.floats(1e-4, 0.003))
def test_noise_moves_it_little(fixed: float, a_token: float) -> None:
    right = min(max((TARGET - fixed) / a_token, 64), MOST)
    budgets = play(PromptBudget(TARGET, MOST), fixed, a_token, 100, noise=0.1)
    assert all(0.7 * right < tokens < 1.4 * right for tokens in budgets[50:])


@given(st.lists(st.tuples(st.integers(1, 2000), st.floats(1e-6, 1e4), st.booleans())), st.integers(1, 2000))
def test_it_stays_within_bounds_whatever_steps_take(steps: list[tuple[int, float, bool]], most: int) -> None:
    budget = PromptBudget(TARGET, most)
    for tokens, seconds, beside_decodes in steps:
        before = budget.tokens
        budget.note(tokens, seconds, beside_decodes=beside_decodes)
        assert min(64, most) <= budget.tokens <= most
        assert before // 2 <= budget.tokens <= 2 * (before + 1)


def test_a_short_step_asks_for_more_only_if_decodes_were_in_it() -> None:
    budget = PromptBudget(TARGET, MOST)
    budget.note(256, 0.1, beside_decodes=False)
    assert budget.tokens == 128
    budget.note(256, 0.1, beside_decodes=True)
    assert budget.tokens == 256


def test_the_rest_of_a_prompt_takes_nothing_away() -> None:
    budget = PromptBudget(TARGET, MOST)
    budget.note(3, 0.06, beside_decodes=True)
    assert budget.tokens == 128
    budget.note(100, 0.6, beside_decodes=True)  # but fewer than the budget that take too long do
    assert budget.tokens < 100


def test_a_long_step_without_decodes_tells_how_long_those_with_them_will_be() -> None:
    budget = PromptBudget(TARGET, MOST)
    budget.note(512, 2.0, beside_decodes=False)
    assert 76 <= budget.tokens < 128


def test_an_interruption_is_made_up_for() -> None:
    budget = PromptBudget(TARGET, MOST)
    before = play(budget, 0.05, 0.001, 40)[-1]
    budget.note(before, 60.0, beside_decodes=True)
    assert budget.tokens == before // 2
    assert play(budget, 0.05, 0.001, 10)[-1] > 0.95 * before


def test_without_a_target_steps_are_as_large_as_they_may_be() -> None:
    assert play(PromptBudget(math.inf, MOST), 10.0, 1.0, 10)[-1] == MOST


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.0, 0.2), st.floats(1e-5, 0.02), st.floats(1e-4, 0.02), st.integers(1, 8), st.integers(256, 1024)
)
def test_prompts_beside_decodes_end_and_leave_gaps_as_asked(
    reading: float, a_prompt_token: float, a_decode: float, decodes: int, most: int
) -> None:
    """Steps take `reading` seconds, and more for each token."""
    options = EngineOptions(max_step_tokens=most, inter_token_latency=0.25)
    now = 0.0
    scheduler = Scheduler(options, clock=lambda: now)
    talking = [sequence(f"talks{i}", 1, tenant=f"talks{i}", more=10_000) for i in range(decodes)]
    for s in talking:
        scheduler.add(s)
    run(scheduler)
    asking = sequence("asks", 20_000, tenant="asks", more=1)
    scheduler.add(asking)
    gaps, chunks = [], []
    while not ended(asking):
        work = dict(run(scheduler))
        assert all(work[s.id] == 1 for s in talking)
        chunks.append(work["asks"])
        gaps.append(reading + a_prompt_token * work["asks"] + a_decode * decodes)
        now += gaps[-1]
        scheduler.took(sum(work.values()), work["asks"], gaps[-1])
    assert min(chunks[:-1]) >= 64
    # while a gap is off by a tenth, a step moves the budget by a twentieth: from 128 tokens 15 steps to 64, 40 to 1024
    for step, (gap, chunk) in enumerate(zip(gaps[:-1], chunks[:-1], strict=True)):
        assert gap < 1.1 * options.inter_token_latency or chunk <= 65 or step < 15
        assert gap > 0.9 * options.inter_token_latency or chunk == most - decodes or step < 40
