from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.engine.scheduler import Scheduler
from faasmoe.protocol.config import EngineOptions
from tests.unit.engine.draining import drain, requests
from tests.unit.engine.sequences import Guesses, ended, memory_for, sequence, step


@settings(max_examples=200)
@given(requests, st.integers(1, 24), st.integers(1, 6), st.data())
def test_drafts_take_what_is_left(
    asked: list[tuple[str, int, int, int]], budget: int, most: int, data: st.DataObject
) -> None:
    largest = max(n + m for _, n, m, _ in asked)
    memory = memory_for(data.draw(st.integers(largest, 3 * largest)))
    scheduler = Scheduler(EngineOptions(max_step_tokens=budget, max_sequences=most), memory)
    sequences = [sequence(str(i), n, tenant=t, more=m, priority=p) for i, (t, n, m, p) in enumerate(asked)]
    for s in sequences:
        s.speculator = Guesses(data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5)))
        scheduler.add(s)
    drain(scheduler, sequences, 50 * sum(s.limit for s in sequences) + 1)
    assert memory.used == memory.prefixes.nbytes


def test_a_draft_takes_no_tokens_from_others_and_never_goes_beyond_the_limit() -> None:
    scheduler = Scheduler(EngineOptions(max_step_tokens=8))
    first, second = sequence("a", 3, more=10), sequence("b", 2, more=4)
    first.speculator, second.speculator = Guesses(5, 5), Guesses(5, 5)
    scheduler.add(first)
    scheduler.add(second)
    assert [(w.count, w.draft) for w in step(scheduler)] == [(3, ()), (2, ())]
    assert [(w.count, len(w.draft)) for w in step(scheduler)] == [(6, 5), (2, 1)]  # of 8
    assert (len(first.tokens), len(second.tokens)) == (3 + 1 + 6, 2 + 1 + 2)
    assert [(w.count, len(w.draft)) for w in step(scheduler)] == [(3, 2), (1, 0)]
    assert ended(first)
    assert ended(second)
    assert (scheduler.drafted, scheduler.accepted) == (8, 8)


def test_for_a_draft_nobody_is_preempted() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(100))
    old, young = sequence("old", 20, more=40), sequence("young", [9, *range(19)], more=40)
    for s in (old, young):
        scheduler.add(s)
    step(scheduler)
    scheduler.memory.total = scheduler.memory.used
    while old.pending + old.computed + 5 <= old.capacity:
        step(scheduler)
    old.speculator = Guesses(5, 0)
    assert [(w.sequence.id, w.count) for w in step(scheduler)] == [("old", 1), ("young", 1)]
    assert scheduler.preemptions == 0


def test_tokens_that_come_of_drafts_are_part_of_a_tenants_share() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=2))
    got: Counter[str] = Counter()
    for i in range(6):
        for tenant in "ab":
            s = sequence(f"{tenant}{i}", [100 * i + ord(tenant), 1], tenant=tenant, more=4000)
            s.speculator = Guesses(3, 3) if tenant == "a" else None
            scheduler.add(s)
    for _ in range(300):
        for w in step(scheduler):
            got[w.sequence.tenant] += w.certain + len(w.draft)
    assert got["a"] / got["b"] == pytest.approx(1, rel=0.1)
