from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import EngineBusy
from faasmoe.orchestrator.request import GenerationRequest
from faasmoe.orchestrator.scheduler import Scheduler, SchedulerConfig
from faasmoe.orchestrator.sequence import Sequence


def sequence(name: str, prompt: int) -> Sequence:
    return Sequence(GenerationRequest(name, tuple(range(prompt))))


def run(scheduler: Scheduler) -> list[tuple[str, int]]:
    """One step: what ran, with its effects applied."""
    work = scheduler.next_step()
    for w in work:
        complete = w.completes
        w.sequence.computed += w.count
        if complete:
            w.sequence.tokens.append(0)
    return [(w.sequence.id, w.count) for w in work]


def test_decodes_come_before_prompts_and_prompts_in_chunks() -> None:
    scheduler = Scheduler(SchedulerConfig(max_tokens=8))
    scheduler.add(sequence("long", 20))
    assert run(scheduler) == [("long", 8)]
    scheduler.add(sequence("short", 3))
    assert run(scheduler) == [("long", 8)]
    assert run(scheduler) == [("long", 4), ("short", 3)]
    scheduler.add(sequence("late", 10))
    assert run(scheduler) == [("long", 1), ("short", 1), ("late", 6)]
    assert run(scheduler) == [("long", 1), ("short", 1), ("late", 4)]


def test_too_many_sequences_wait_and_then_are_refused() -> None:
    scheduler = Scheduler(SchedulerConfig(max_sequences=1, max_waiting=1))
    first, second = sequence("a", 1), sequence("b", 1)
    scheduler.add(first)
    assert run(scheduler) == [("a", 1)]
    scheduler.add(second)
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    with pytest.raises(EngineBusy):
        scheduler.add(sequence("c", 1))
    scheduler.remove(first)
    assert run(scheduler) == [("b", 1)]
    scheduler.remove(second)
    scheduler.remove(second)  # twice is fine
    assert run(scheduler) == []


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 16), st.integers(1, 4))
def test_every_prompt_is_computed_once_and_within_budget(prompts: list[int], budget: int, most: int) -> None:
    scheduler = Scheduler(SchedulerConfig(max_tokens=budget, max_sequences=most))
    sequences = [sequence(str(i), n) for i, n in enumerate(prompts)]
    for s in sequences:
        scheduler.add(s)
    for _ in range(10 * (sum(prompts) + len(prompts))):
        done = run(scheduler)
        assert sum(count for _, count in done) <= budget
        assert len({name for name, _ in done}) == len(done) <= most
        for s in sequences:
            if s.generated:
                scheduler.remove(s)
        if not done:
            break
    assert [s.computed for s in sequences] == prompts
    assert all(s.generated == 1 for s in sequences)
