"""Sequences whose state cannot be truncated, in the allocator, the prefix cache and the scheduler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.kv.prefix_cache import LEAST, Prefix, PrefixCache, common_length
from faasmoe.engine.scheduler import Scheduler
from faasmoe.engine.sequence import Sequence
from faasmoe.errors import OptionError
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.protocol.config import EngineOptions
from tests.unit.engine.sequences import ONE_NUMBER, run, sequence
from tests.unit.running_sum import RunningSumSpec

SPEC = StateSpec({0: ONE_NUMBER, 1: RunningSumSpec(size=100)})


def computed(memory: KVAllocator, one: Sequence) -> Sequence:
    """As after a step that ran all its tokens."""
    memory.begin(one)
    new = one.tokens[one.computed :]
    key = torch.tensor(new, dtype=torch.float).view(1, -1, 1)
    one.state.layers[0].append(key, key)
    assert one.state.layers[1].add(new) == sum(one.tokens)
    one.advance(len(new))
    return one


def test_each_sequence_is_counted_with_its_constant_part() -> None:
    memory = KVAllocator(2 * SPEC.nbytes(16), SPEC)
    one, other, third = (sequence(name, 10, more=6) for name in "abc")
    for each in (one, other):
        assert memory.missing(each, 10) == 0
        computed(memory, each)
    assert memory.used == 2 * SPEC.nbytes(16)
    assert memory.missing(third, 1) == SPEC.nbytes(16)
    memory.release(one)
    assert (memory.used, memory.missing(third, 1)) == (SPEC.nbytes(16), 0)
    with pytest.raises(OptionError, match="must be 116 at least"):
        KVAllocator.of(EngineOptions(kv_cache_bytes=115), SPEC)


def test_a_prompt_that_goes_on_from_a_snapshot_copies_it_for_others_to_use_as_well() -> None:
    memory = KVAllocator(SPEC.nbytes(1000), SPEC)
    memory.end(computed(memory, sequence("a", 20)), keep=True)
    for name in "bc":
        assert computed(memory, sequence(name, 30)).cached_tokens == 20
    assert len(memory.prefixes) == 1
    assert computed(memory, sequence("d", [*range(19), 7, 7])).cached_tokens == 0  # has less in common


def test_without_memory_for_both_a_snapshot_is_taken_over() -> None:
    memory = KVAllocator(SPEC.nbytes(50), SPEC)
    memory.end(computed(memory, sequence("a", 30, more=10)), keep=True)
    one = computed(memory, sequence("b", 40, more=8))
    assert (one.cached_tokens, len(memory.prefixes)) == (30, 0)
    assert memory.used == SPEC.nbytes(one.capacity)


def test_a_snapshot_of_more_tokens_than_it_says_is_not_used() -> None:
    """A sequence that is cancelled during a step is kept with the tokens of before, and the model adds some."""
    for total in (50, 1000):  # it is taken over, or copied
        memory = KVAllocator(SPEC.nbytes(total), SPEC)
        one = computed(memory, sequence("a", 30, more=10))
        one.tokens.append(5)
        state = one.state
        memory.end(one, keep=True)
        state.layers[1].add([5])
        assert computed(memory, sequence("b", 40, more=8)).cached_tokens == 0


def test_a_preempted_sequence_recomputes_its_sum() -> None:
    scheduler = Scheduler(EngineOptions(), KVAllocator(SPEC.nbytes(32) + SPEC.nbytes(48), SPEC))
    sequences = [sequence(name, 16, more=40) for name in "ab"]
    for one in sequences:
        scheduler.add(one)
    while not scheduler.preemptions:
        run(scheduler)
    assert [one.computed > 0 for one in sequences] == [True, False]
    assert sequences[1].state.layers == {}
    assert scheduler.memory.used == SPEC.nbytes(sequences[0].capacity)


def snapshot(tokens: list[int]) -> Prefix:
    state = SPEC.allocate()
    state.reserve(len(tokens))
    return Prefix("a", np.array(tokens), state)


few = st.lists(st.integers(0, 1), max_size=8).map(lambda tail: [7] * LEAST + tail)


@given(st.lists(st.tuples(st.sampled_from(["add", "find", "evict"]), few), max_size=60))
@settings(max_examples=200, deadline=None)
def test_the_longest_snapshot_is_found_that_comparing_with_all_would_find(
    doing: list[tuple[str, list[int]]],
) -> None:
    kept, those = PrefixCache(SPEC), list[Prefix]()
    for what, tokens in doing:
        if what == "add":
            new, held = snapshot(tokens), any(one.tokens.tolist() == tokens for one in those)
            assert kept.add(new) != held
            if not held:
                those.append(new)
        elif what == "find":
            wanted = np.array(tokens[:-1])
            whole = [len(one.tokens) for one in those if common_length(one.tokens, wanted) == len(one.tokens)]
            found = kept.find("a", np.array(tokens))
            assert (found[1] if found else 0) == max(whole, default=0)
            assert found is None or (found[0] in those and len(found[0].tokens) == found[1])
        elif those:
            assert kept.evict()
            those = [one for one in those if one in kept._by_use]
        assert (len(kept), kept.nbytes) == (len(those), sum(SPEC.nbytes(one.state.capacity) for one in those))
    while kept.evict():
        pass
    assert not kept._roots
