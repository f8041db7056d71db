from __future__ import annotations

from faasmoe.engine.scheduler import Scheduler
from faasmoe.protocol.config import EngineOptions
from tests.unit.engine.draining import drain
from tests.unit.engine.sequences import ended, memory_for, run, sequence


def test_a_higher_priority_goes_first_whatever_its_tenant_has_started() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=2), memory_for(80))
    low = [sequence(f"low{i}", 20, more=20) for i in range(3)]
    for s in low:
        scheduler.add(s)
    assert [name for name, _ in run(scheduler)] == ["low0", "low1"]
    high = sequence("high", 20, more=20, priority=1)
    scheduler.add(high)
    assert [name for name, _ in run(scheduler)] == ["high", "low0"]
    assert (scheduler.preemptions, low[1].capacity) == (1, 0)  # the last of its tenant makes room
    while not ended(high):
        assert run(scheduler)[0][0] == "high"
    scheduler.remove(high, keep=False)
    assert [name for name, _ in run(scheduler)] == ["low0", "low1"]


def test_the_youngest_of_the_tenant_that_has_most_goes_first() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(128))
    sequences = [sequence(f"{t}{i}", 28, tenant=t, more=36) for t, i in ("a0", "b0", "b1")]
    for s in sequences:
        scheduler.add(s)
    while not scheduler.preemptions:
        run(scheduler)
    a0, b0, b1 = sequences
    assert (a0.computed > 0, b0.computed > 0, b1.computed) == (True, True, 0)
    assert b1.seen > 28
    drain(scheduler, sequences, 200)


def test_a_sequence_that_was_preempted_runs_all_its_tokens_again() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(64))
    old, young = sequence("old", 16, more=40), sequence("young", 16, more=40)
    scheduler.add(old)
    scheduler.add(young)
    while young.capacity or not young.seen:
        run(scheduler)
    tokens = list(young.tokens)
    while not ended(old):
        assert run(scheduler)[0][0] == "old"
    scheduler.remove(old, keep=False)
    assert ("young", len(tokens)) in run(scheduler)
    assert young.tokens[:-1] == tokens
    assert young.seen == young.computed


def test_prefixes_go_before_anybody_is_preempted() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(64))
    first = sequence("first", 30, more=2)
    scheduler.add(first)
    run(scheduler)
    scheduler.remove(first)
    assert len(scheduler.memory.prefixes) == 1
    scheduler.add(sequence("second", [9, *range(40)], more=20))
    assert run(scheduler) == [("second", 41)]
    assert len(scheduler.memory.prefixes) == 0
    assert scheduler.preemptions == 0
