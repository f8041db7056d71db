from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.engine.prompt_budget import PromptBudget
from faasmoe.engine.scheduler import Scheduler
from faasmoe.errors import EngineBusy
from faasmoe.protocol.config import EngineOptions
from tests.unit.engine.draining import drain, requests
from tests.unit.engine.sequences import ended, memory_for, run, sequence


def test_decodes_go_on_beside_chunks_of_prompts() -> None:
    scheduler = Scheduler(EngineOptions(max_step_tokens=8), prompt_budget=PromptBudget(1.0, most=4))
    scheduler.add(sequence("long", 20))
    assert run(scheduler) == [("long", 8)]
    assert run(scheduler) == [("long", 8)]
    scheduler.add(sequence("short", 3))
    assert run(scheduler) == [("long", 4), ("short", 3)]
    scheduler.add(sequence("late", 10))
    assert run(scheduler) == [("long", 1), ("short", 1), ("late", 4)]
    assert run(scheduler) == [("long", 1), ("short", 1), ("late", 4)]
    assert run(scheduler) == [("long", 1), ("short", 1), ("late", 2)]


def test_too_many_sequences_wait_and_then_are_refused() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=1, max_waiting=1))
    first, second = sequence("a", 1), sequence("b", 1)
    scheduler.add(first)
    assert run(scheduler) == [("a", 1)]
    scheduler.add(second)
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    with pytest.raises(EngineBusy) as refusal:
        scheduler.add(sequence("c", 1))
    assert refusal.value.retry_after is not None
    assert refusal.value.retry_after >= 1
    scheduler.add(sequence("d", 1, tenant="of whom nobody waits"))
    scheduler.remove(first)
    assert set(run(scheduler)) < {("b", 1), ("d", 1)}
    scheduler.remove(second)
    scheduler.remove(second)  # twice is fine
    assert run(scheduler) == [("d", 1)]


def test_a_refused_client_is_told_when_those_before_it_will_have_begun() -> None:
    now = [100.0]
    scheduler = Scheduler(EngineOptions(max_sequences=1, max_waiting=10), clock=lambda: now[0])
    waiting = [sequence(str(i), 1, more=1) for i in range(14)]
    for s in waiting[:5]:
        scheduler.add(s)
    for s in waiting[:4]:  # one in two seconds
        assert run(scheduler) == [(s.id, 1)]
        scheduler.remove(s)
        now[0] += 2
    assert waiting[3].queue_seconds == 6
    assert waiting[4].queue_seconds == 0
    for s in waiting[5:]:
        scheduler.add(s)
    assert scheduler.retry_after() == 2 * 10


@given(requests, st.integers(1, 16), st.integers(1, 4), st.integers(1, 16))
def test_every_sequence_ends_within_budget(
    asked: list[tuple[str, int, int, int]], budget: int, most: int, prompts: int
) -> None:
    scheduler = Scheduler(
        EngineOptions(max_step_tokens=budget, max_sequences=most), prompt_budget=PromptBudget(1.0, most=prompts)
    )
    sequences = [sequence(str(i), n, tenant=t, more=m, priority=p) for i, (t, n, m, p) in enumerate(asked)]
    for s in sequences:
        scheduler.add(s)
    drain(scheduler, sequences, sum(s.limit for s in sequences))
    assert all(s.seen == s.limit - 1 for s in sequences)
    assert (scheduler.running, scheduler.waiting, scheduler.preemptions) == (0, 0, 0)


@settings(max_examples=300)
@given(requests, st.integers(1, 64), st.integers(1, 6), st.floats(0.2, 5), st.data())
def test_every_sequence_ends_however_little_memory_there_is(
    asked: list[tuple[str, int, int, int]], budget: int, most: int, weight: float, data: st.DataObject
) -> None:
    largest = max(n + m for _, n, m, _ in asked)
    memory = memory_for(data.draw(st.integers(largest, 3 * largest)))
    scheduler = Scheduler(EngineOptions(max_step_tokens=budget, max_sequences=most), memory)
    sequences, left = [], list(enumerate(asked))
    while left:  # they arrive while others run, and some are cancelled
        i, (tenant, prompt, more, priority) = left.pop()
        beginning = data.draw(st.integers(0, 1))
        its = {"tenant": tenant, "more": more, "priority": priority, "weight": weight if tenant == "a" else 1.0}
        s = sequence(str(i), [beginning, *range(1, prompt)], **its)
        scheduler.add(s)
        if data.draw(st.booleans()):
            run(scheduler)
        for one in [*sequences, s]:
            if ended(one):
                scheduler.remove(one)
        if data.draw(st.integers(0, 5)) == 0:
            scheduler.remove(s)
        else:
            sequences.append(s)
    for one in sequences:
        if ended(one):
            scheduler.remove(one)
    drain(scheduler, sequences, 50 * sum(s.limit for s in sequences) + 1)
    assert memory.used == memory.prefixes.nbytes
