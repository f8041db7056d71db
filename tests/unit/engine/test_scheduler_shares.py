from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from faasmoe.engine.prompt_budget import PromptBudget
from faasmoe.engine.scheduler import Scheduler
from faasmoe.protocol.config import EngineOptions
from tests.unit.engine.sequences import A_TOKEN, ended, memory_for, run, sequence


def saturate(
    scheduler: Scheduler,
    steps: int,
    prompt: int,
    more: int,
    tenants: str,
    priorities: int = 1,
    *,
    between: Callable[[], None] = lambda: None,
    **weights: float,
) -> Counter[str]:
    """Tokens that each tenant's sequences got, with always twenty of each there, in so many classes.

    `between` is called before each step.
    """
    got: Counter[str] = Counter()
    numbers = count(1_000_000)

    def another(name: str, tenant: str, priority: int) -> None:
        its = {"tenant": tenant, "more": more, "priority": priority, "weight": weights.get(tenant, 1.0)}
        # no two begin alike, or a tenant has less to do than its weight lets it
        scheduler.add(sequence(name, [next(numbers), *range(1, prompt)], **its))

    for i in range(20):
        for tenant in tenants:
            another(f"{tenant}{i}", tenant, i % priorities)
    for _ in range(steps):
        between()
        work = scheduler.next_step()
        for w in work:
            got[w.sequence.tenant] += w.count
            complete = w.completes
            w.sequence.advance(w.count)
            if complete:
                w.sequence.tokens.append(0)
            if ended(w.sequence):
                scheduler.remove(w.sequence, keep=False)
                another(w.sequence.id, w.sequence.tenant, w.sequence.priority)
    return got


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(2, 8), st.sampled_from([None, 400, 1000]))
@example(36, 19, 8, 400)
def test_two_saturated_tenants_get_tokens_as_their_weights(
    prompt: int, more: int, most: int, memory: int | None
) -> None:
    options = EngineOptions(max_step_tokens=64, max_sequences=most)
    scheduler = Scheduler(
        options, memory_for(memory) if memory else None, prompt_budget=PromptBudget(1.0, most=16)
    )
    got = saturate(scheduler, 1500, prompt, more, "ab", a=3.0)
    assert got["a"] / got["b"] == pytest.approx(3, rel=0.05)


def test_the_newest_requests_weight_holds() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=8))
    got = saturate(scheduler, 500, 10, 10, "ab")
    assert got["a"] / got["b"] == pytest.approx(1, rel=0.05)
    got = saturate(scheduler, 500, 10, 10, "ab", b=4.0)
    assert got["b"] / got["a"] == pytest.approx(4, rel=0.05)


def test_many_that_wait_do_not_delay_another_tenants_first() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=4))
    for i in range(50):
        scheduler.add(sequence(f"a{i}", 5, tenant="a", more=100))
    for _ in range(10):
        run(scheduler)
    scheduler.add(sequence("b", 5, tenant="b"))
    assert ("b", 5) in run(scheduler)
    for _ in range(5):
        assert ("b", 1) in run(scheduler)


def test_many_that_hold_all_memory_do_not_delay_another_tenants_first() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(160))
    for i in range(50):
        scheduler.add(sequence(f"a{i}", 16, tenant="a", more=16))
    for _ in range(3):
        run(scheduler)
    assert scheduler.memory.used == 160 * A_TOKEN
    scheduler.add(sequence("b", 20, tenant="b"))
    assert ("b", 20) in run(scheduler)
    assert 1 <= scheduler.preemptions <= 2


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.sampled_from([None, 400]), st.integers(2, 8))
def test_classes_of_one_tenant_are_no_other_tenants_concern(classes: int, memory: int | None, most: int) -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=most), memory_for(memory) if memory else None)
    for i in range(20):  # with nothing to do but wait, in the end
        scheduler.add(sequence(f"low{i}", 10, tenant="a", more=10, priority=-1))
    got = saturate(scheduler, 500, 10, 10, "ab", priorities=classes)
    assert got["b"] / got["a"] == pytest.approx(1, rel=0.1)


def test_a_tenant_that_idled_has_no_credit() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=4))
    saturate(scheduler, 300, 10, 10, "a")
    got = saturate(scheduler, 40, 10, 10, "b")
    assert got["b"] / got["a"] == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(("weight", "part"), [(1.0, 0.0), (3.0, 0.5)])
def test_tokens_served_elsewhere_are_part_of_a_share(weight: float, part: float) -> None:
    """Another scheduler serves as many tokens, all to tenant a. `part` of those here bring a to its weight in all."""
    scheduler, steps = Scheduler(EngineOptions(max_sequences=4)), count()

    def exchange() -> None:
        if next(steps) % 20 == 0:
            scheduler.served_elsewhere({"a": sum(scheduler.take_served().values())})

    got = saturate(scheduler, 2000, 10, 10, "ab", between=exchange, a=weight)
    assert got["a"] / got.total() == pytest.approx(part, abs=0.05)
