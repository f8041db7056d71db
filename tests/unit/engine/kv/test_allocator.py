from __future__ import annotations

import pytest
import torch

from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.kv.cache import KVCache
from faasmoe.engine.sequence import Sequence
from faasmoe.errors import OptionError
from faasmoe.protocol.options import EngineOptions
from tests.unit.engine.sequences import sequence


def computed(memory: KVAllocator, one: Sequence) -> Sequence:
    """As after a step that ran all its tokens: keys are the tokens themselves."""
    memory.begin(one)
    for layer in (0, 1):
        new = torch.tensor(one.tokens[one.computed :], dtype=torch.float).reshape(1, -1, 1)
        one.cache.append(layer, new, new)
    one.advance(one.pending)
    return one


def keys(one: Sequence) -> list[int]:
    """All keys but that of a further token."""
    return one.cache.append(1, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))[0][0, :-1, 0].int().tolist()


def test_caches_grow_in_strides_with_little_to_spare() -> None:
    memory, one = KVAllocator(), sequence("a", 1, more=10_000)
    sizes = set()
    for tokens in range(1, 10_000):
        memory.reserve(one, tokens)
        sizes.add(one.capacity)
        assert tokens <= one.capacity <= tokens + max(16, tokens // 4) + 16
    assert len(sizes) < 45
    assert memory.used == memory.held("") == one.capacity
    memory.reserve(one, 10_001)
    assert one.capacity == 10_001  # never more than it can come to


def test_a_cache_gets_what_there_is_when_memory_is_short() -> None:
    memory = KVAllocator(100)
    one, other = sequence("a", 60), sequence("b", 10)
    memory.reserve(one, 60)
    assert one.capacity == 76
    assert memory.missing(other, 10) == 0
    memory.reserve(other, 10)
    assert (other.capacity, memory.used) == (16, 92)
    assert memory.missing(other, 17) == 2
    memory.reserve(other, 16)
    memory.release(one)
    assert (memory.used, one.capacity, one.computed, one.cache.nbytes) == (16, 0, 0, 0)


def test_an_ended_sequence_hands_its_cache_to_the_one_that_continues_it() -> None:
    memory = KVAllocator(1000)
    first = computed(memory, sequence("a", 20))
    cache = first.cache
    memory.end(first, keep=True)
    assert memory.used == memory.prefixes.capacity == 32
    second = computed(memory, sequence("b", 30))
    assert second.cache is cache
    assert (second.cached_tokens, memory.used, memory.prefixes.capacity) == (20, second.capacity, 0)
    assert keys(second) == second.tokens


def test_a_sequence_that_shares_a_beginning_copies_it() -> None:
    memory = KVAllocator(1000)
    memory.end(computed(memory, sequence("a", 30)), keep=True)
    second = computed(memory, sequence("b", [*range(20), 7, 7, 7]))
    assert second.cached_tokens == 20
    assert len(memory.prefixes) == 1
    third = computed(memory, sequence("c", [*range(25), 7, 7, 7]))
    assert third.cached_tokens == 25
    assert keys(second) == second.tokens
    assert keys(third) == third.tokens


def test_without_memory_for_both_the_beginning_is_taken_over() -> None:
    memory = KVAllocator(50)
    memory.end(computed(memory, sequence("a", 30, more=10)), keep=True)
    second = computed(memory, sequence("b", [*range(20), 7, 7, 7]))
    assert second.cached_tokens == 20
    assert (len(memory.prefixes), memory.used) == (0, second.capacity)
    assert keys(second) == second.tokens


def test_what_a_running_sequence_knows_is_copied() -> None:
    memory = KVAllocator(1000)
    memory.end(computed(memory, sequence("before", 18)), keep=True)
    running = computed(memory, sequence("a", 30))
    second = computed(memory, sequence("b", [*range(25), 7, 7]))
    assert second.cached_tokens == 25
    assert keys(second) == second.tokens
    assert keys(running) == running.tokens
    half = sequence("c", [5, *range(30)])
    memory.begin(half)
    assert computed(memory, sequence("d", [5, *range(30)])).cached_tokens == 0  # nothing of it is known yet
    memory.end(running, keep=False)
    memory.end(second, keep=False)
    assert computed(memory, sequence("e", [*range(25), 7, 7])).cached_tokens == 0


def test_what_has_to_be_computed_or_belongs_to_others_is_not_reused() -> None:
    memory = KVAllocator()
    memory.end(computed(memory, sequence("a", 30)), keep=True)
    stranger, exact = sequence("b", 30, tenant="other"), sequence("c", 30)
    exact.reusable = False
    for one in (stranger, exact):
        assert computed(memory, one).cached_tokens == 0
    memory.end(stranger, keep=False)
    assert computed(memory, sequence("d", 30, tenant="other")).cached_tokens == 0
    short = computed(memory, sequence("e", 10, tenant="short"))
    memory.end(short, keep=True)
    assert memory.held("short") == 0
    assert len(memory.prefixes) == 1


def test_what_cannot_be_copied_for_want_of_memory_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = KVAllocator(1000)
    memory.end(computed(memory, sequence("a", 30)), keep=True)
    running = computed(memory, sequence("b", [*range(20), 7, 7]))
    used = memory.used

    def fails(self: KVCache, other: KVCache, tokens: int) -> None:
        self.append(0, torch.zeros(1, 3, 1), torch.zeros(1, 3, 1))
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(KVCache, "copy_from", fails)
        for tokens in ([*range(25), 8], [*range(20), 7, 7, 9]):  # of a prefix, of a running sequence
            one = computed(memory, sequence("c", tokens))
            assert one.cached_tokens == 0
            assert keys(one) == tokens
            memory.end(one, keep=False)
    assert memory.used == used
    assert keys(running) == running.tokens


def test_the_budget_counts_the_layer_that_grows() -> None:
    memory = KVAllocator.of(EngineOptions(kv_cache_bytes=10_000), {0: 60, 1: 20})
    assert memory.total == 10_000 // (60 + 20 + 60)
    assert KVAllocator.of(EngineOptions(), {0: 60}).total > 1000
    with pytest.raises(OptionError, match="kv_cache_bytes is 139: must be 140 at least"):
        KVAllocator.of(EngineOptions(kv_cache_bytes=139), {0: 60, 1: 20})
