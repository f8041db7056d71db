"""Snapshots of prompts that still run, in the scheduler and the allocator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.kv import snapshots
from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.sequence import Sequence
from faasmoe.model.state.sequence_state import StateSpec
from tests.unit.engine.sequences import ONE_NUMBER, sequence
from tests.unit.running_sum import RunningSumSpec

SPEC = StateSpec({0: RunningSumSpec(size=100)})


@pytest.fixture(autouse=True)
def near_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LEAST_DISTANCE", 16)


def ran(memory: KVAllocator, one: Sequence) -> list[int]:
    """Run all its tokens in steps of up to 40. Returns the tokens of each step."""
    memory.begin(one)
    counts = []
    while one.pending:
        counts.append(min(40, memory.most_tokens(one)))
        one.state.layers[0].add(one.tokens[one.computed : one.computed + counts[-1]])
        one.advance(counts[-1])
        memory.ran(one)
    assert one.state.layers[0].total == sum(one.tokens)
    return counts


def test_steps_end_at_borders_and_a_part_of_the_prompt_is_reused() -> None:
    memory = KVAllocator(100_000, SPEC)
    assert ran(memory, sequence("a", 50)) == [16, 16, 16, 2]
    assert len(memory.prefixes) == 3
    other = sequence("b", [*range(40), 99, 99, 99])
    assert ran(memory, other) == [11]
    assert other.cached_tokens == 32


def test_a_long_prompt_has_few_snapshots() -> None:
    memory = KVAllocator(1_000_000, SPEC)
    ran(memory, sequence("a", 1000))
    assert len(memory.prefixes) == 7  # the eighth would be all of it


def test_a_state_that_can_be_truncated_needs_none() -> None:
    memory = KVAllocator(100_000, StateSpec({0: ONE_NUMBER}))
    one = sequence("a", 50)
    memory.begin(one)
    assert memory.most_tokens(one) == 50


@pytest.mark.parametrize("snapshots_that_fit", [0, 1])
def test_without_memory_the_last_of_them_is_kept_or_none(snapshots_that_fit: int) -> None:
    memory = KVAllocator((1 + snapshots_that_fit) * 100, SPEC)
    one = sequence("a", 50)
    ran(memory, one)
    assert len(memory.prefixes) == snapshots_that_fit
    assert memory.used <= memory.total
    memory.release(one)
    other = sequence("b", [*range(49), 7])
    ran(memory, other)
    assert other.cached_tokens == 48 * snapshots_that_fit


@given(st.integers(1, 5000), st.data())
def test_the_tokens_before_borders_are_all_tokens(prompt: int, data: st.DataObject) -> None:
    one = sequence("a", prompt)
    met = 0
    while one.computed < prompt:
        count = data.draw(st.integers(1, min(one.pending, snapshots.before_border(one))))
        one.advance(count)
        met += snapshots.at_border(one)
    assert met <= 8
