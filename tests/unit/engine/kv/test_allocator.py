from __future__ import annotations

import pytest
import torch

from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.sequence import Sequence
from faasmoe.errors import OptionError
from faasmoe.model.state.kv_cache import KVCache, KVCacheSpec
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.protocol.config import EngineOptions
from tests.unit.engine.sequences import A_TOKEN, memory_for, sequence


def computed(memory: KVAllocator, one: Sequence) -> Sequence:
    """As after a step that ran all its tokens: keys are the tokens themselves."""
    memory.begin(one)
    for layer in (0, 1):
        new = torch.tensor(one.tokens[one.computed :], dtype=torch.float).reshape(1, -1, 1)
        one.state.layers[layer].append(new, new)
    one.advance(one.pending)
    return one


def keys(one: Sequence) -> list[int]:
    """All keys but that of a further token."""
    return one.state.layers[1].append(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))[0][0, :-1, 0].int().tolist()


def test_caches_grow_in_strides_with_little_to_spare() -> None:
    memory, one = memory_for(20_000), sequence("a", 1, more=10_000)
    sizes = set()
    for tokens in range(1, 10_000):
        memory.reserve(one, tokens)
        sizes.add(one.capacity)
        assert tokens <= one.capacity <= tokens + max(16, tokens // 4) + 16
    assert len(sizes) < 45
    assert memory.used == memory.held("") == one.capacity * A_TOKEN
    memory.reserve(one, 10_001)
    assert one.capacity == 10_001  # never more than it can come to


def test_a_cache_gets_what_there_is_when_memory_is_short() -> None:
    memory = memory_for(100)
    one, other = sequence("a", 60), sequence("b", 10)
    memory.reserve(one, 60)
    assert one.capacity == 76
    assert memory.missing(other, 10) == 0
    memory.reserve(other, 10)
    assert (other.capacity, memory.used) == (16, 92 * A_TOKEN)
    assert memory.missing(other, 17) == 2 * A_TOKEN
    memory.reserve(other, 16)
    memory.release(one)
    assert (memory.used, one.capacity, one.computed, one.state.nbytes) == (16 * A_TOKEN, 0, 0, 0)


def test_an_ended_sequence_hands_its_cache_to_the_one_that_continues_it() -> None:
    memory = memory_for(1000)
    first = computed(memory, sequence("a", 20))
    state = first.state
    memory.end(first, keep=True)
    assert memory.used == memory.prefixes.nbytes == 32 * A_TOKEN
    second = computed(memory, sequence("b", 30))
    assert second.state is state
    assert (second.cached_tokens, memory.used, memory.prefixes.nbytes) == (20, second.capacity * A_TOKEN, 0)
    assert keys(second) == second.tokens


def test_a_sequence_that_shares_a_beginning_copies_it() -> None:
    memory = memory_for(1000)
    memory.end(computed(memory, sequence("a", 30)), keep=True)
    second = computed(memory, sequence("b", [*range(20), 7, 7, 7]))
    assert second.cached_tokens == 20
    assert len(memory.prefixes) == 1
    third = computed(memory, sequence("c", [*range(25), 7, 7, 7]))
    assert third.cached_tokens == 25
    assert keys(second) == second.tokens
    assert keys(third) == third.tokens


def test_without_memory_for_both_the_beginning_is_taken_over() -> None:
    memory = memory_for(50)
    memory.end(computed(memory, sequence("a", 30, more=10)), keep=True)
    second = computed(memory, sequence("b", [*range(20), 7, 7, 7]))
    assert second.cached_tokens == 20
    assert (len(memory.prefixes), memory.used) == (0, second.capacity * A_TOKEN)
    assert keys(second) == second.tokens


def test_what_a_running_sequence_knows_is_copied() -> None:
    memory = memory_for(1000)
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
    memory = memory_for(20_000)
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
    memory = memory_for(1000)
    memory.end(computed(memory, sequence("a", 30)), keep=True)
    running = computed(memory, sequence("b", [*range(20), 7, 7]))
    used = memory.used

    def fails(self: KVCache, other: KVCache, tokens: int) -> None:
        self.append(torch.zeros(1, 3, 1), torch.zeros(1, 3, 1))
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


def bytes_a_token(*layers: int) -> StateSpec:
    """Layers whose tokens take so many bytes."""
    return StateSpec({i: KVCacheSpec(1, n // 8, n // 8, torch.float, torch.float) for i, n in enumerate(layers)})


def test_the_budget_counts_the_layer_that_grows() -> None:
    memory = KVAllocator.of(EngineOptions(kv_cache_bytes=10_000), bytes_a_token(64, 24))
    assert memory.spec.tokens_within(memory.total) == 10_000 // (64 + 24 + 64)
    memory = KVAllocator.of(EngineOptions(), bytes_a_token(64))
    assert memory.spec.tokens_within(memory.total) > 1000
    with pytest.raises(OptionError, match="kv_cache_bytes is 151: must be 152 at least"):
        KVAllocator.of(EngineOptions(kv_cache_bytes=151), bytes_a_token(64, 24))
