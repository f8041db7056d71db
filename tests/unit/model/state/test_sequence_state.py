from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.sequence import Sequence
from faasmoe.model.state.kv_cache import KVCache, KVCacheSpec
from faasmoe.model.state.sequence_state import UNLIMITED, SequenceState, StateSpec
from faasmoe.protocol.request import GenerationRequest, SamplingParams


@dataclass
class RunningSum:
    """A made-up kind of state: the sum of all tokens. It cannot forget some of them, as a recurrent matrix cannot."""

    total: int = 0
    tokens: int = 0
    reserved: int = field(default=0, repr=False)

    nbytes = 8

    def reserve(self, tokens: int) -> None:
        self.reserved = tokens

    def append(self, tokens: list[int]) -> None:
        self.total += sum(tokens)
        self.tokens += len(tokens)

    def truncate(self, tokens: int) -> bool:
        if tokens == 0:
            self.total = self.tokens = 0
        return tokens == self.tokens

    def copy_from(self, other: RunningSum, tokens: int) -> bool:
        if tokens != other.tokens:
            return False
        self.total, self.tokens = other.total, other.tokens
        return True


class RunningSumSpec:
    """The kind, as a layer chooses it."""

    bytes_per_sequence = 8
    bytes_per_token = 0
    truncatable = False

    def allocate(self) -> RunningSum:
        return RunningSum()


HEADS, DIM = 2, 3
KV = KVCacheSpec(HEADS, DIM, DIM, torch.float32, torch.float32)
ATTENTION = StateSpec({0: KV, 3: KV})
RECURRENT = StateSpec({1: RunningSumSpec()})
HYBRID = StateSpec({0: KV, 1: RunningSumSpec()})


def rows(tokens: list[int]) -> Tensor:
    """Keys or values `[heads, n, dim]` that tell tokens apart."""
    return torch.tensor(tokens, dtype=torch.float32)[None, :, None].expand(HEADS, -1, DIM)


def see(state: SequenceState, tokens: list[int]) -> None:
    """Add tokens to all layers, as a step of the model does."""
    for layer in state.layers.values():
        if isinstance(layer, KVCache):
            layer.append(rows(tokens), -rows(tokens))
        else:
            layer.append(tokens)


def check(state: SequenceState, tokens: list[int]) -> None:
    """All layers hold exactly these tokens."""
    for layer in state.layers.values():
        if isinstance(layer, KVCache):
            assert layer.length == len(tokens)
            assert torch.equal(layer.keys[:, : layer.length], rows(tokens))
            assert torch.equal(layer.values[:, : layer.length], -rows(tokens))
        else:
            assert (layer.total, layer.tokens) == (sum(tokens), len(tokens))


operations = st.lists(st.tuples(st.sampled_from(["see", "truncate", "copy"]), st.integers(0, 12)), max_size=20)


@given(st.sampled_from([ATTENTION, RECURRENT, HYBRID]), operations)
def test_a_state_holds_what_a_list_of_tokens_holds(spec: StateSpec, asked: list[tuple[str, int]]) -> None:
    state, tokens = spec.allocate(), list[int]()
    for i, (operation, count) in enumerate(asked):
        some = min(count, len(tokens))
        if operation == "see":
            state.reserve(max(state.capacity, len(tokens) + count))
            new = [100 * i + j for j in range(count)]
            see(state, new)
            tokens += new
        else:
            kept = some if spec.truncatable or some in (0, len(tokens)) else 0
            if operation == "truncate":
                assert state.truncate(some) == kept
            else:
                other = spec.allocate()
                other.reserve(some)
                assert other.copy_from(state, some) == kept
                check(state, tokens)  # whoever is copied stays as it was
                state = other
            tokens = tokens[:kept]
        check(state, tokens)
        assert state.nbytes <= spec.nbytes(max(1, state.capacity))


def test_sizes_are_those_of_all_layers() -> None:
    a_token = HEADS * 2 * DIM * 4
    assert ATTENTION.bytes_per_token == 3 * a_token  # one of two equal layers twice, while it is copied
    assert (ATTENTION.bytes_per_sequence, RECURRENT.bytes_per_sequence, HYBRID.bytes_per_sequence) == (0, 8, 8)
    assert HYBRID.nbytes(10) == 8 + 10 * 2 * a_token
    assert HYBRID.nbytes(0) == 0
    assert HYBRID.tokens_within(7) == 0
    assert HYBRID.tokens_within(8 + 4 * a_token) == 2
    assert RECURRENT.tokens_within(8) == UNLIMITED
    assert (ATTENTION.truncatable, RECURRENT.truncatable, HYBRID.truncatable) == (True, False, False)


def test_the_kinds_decide_what_another_sequence_can_take() -> None:
    assert ATTENTION.reusable(held=20, common=12) == 12
    assert HYBRID.reusable(held=20, common=12) == 0
    assert HYBRID.reusable(held=12, common=20) == 12


def test_tokens_that_are_not_reserved_are_a_defect() -> None:
    state = ATTENTION.allocate()
    state.reserve(2)
    with pytest.raises(ValueError, match="3 tokens; 2 are reserved"):
        see(state, [1, 2, 3])


def sequence(name: str, tokens: list[int]) -> Sequence:
    return Sequence(GenerationRequest(name, tuple(tokens), SamplingParams(max_tokens=8), tenant="a"))


def run(memory: KVAllocator, one: Sequence) -> None:
    """Begin a sequence and have the model see its prompt."""
    assert memory.missing(one, len(one.tokens)) == 0
    memory.begin(one)
    see(one.state, one.tokens[one.computed :])
    one.advance(len(one.tokens) - one.computed)


def test_a_new_kind_goes_through_allocation_preemption_and_the_prefix_cache() -> None:
    prompt = list(range(1, 33))
    memory = KVAllocator(HYBRID.nbytes(200), HYBRID)
    first = sequence("first", prompt)
    run(memory, first)
    check(first.state, prompt)
    assert memory.used == HYBRID.nbytes(first.capacity) > 0

    memory.end(first, keep=True)  # it has ended; its state waits in the prefix cache
    longer = sequence("longer", [*prompt, 50, 51])
    run(memory, longer)
    assert longer.cached_tokens == len(prompt)  # a snapshot of all tokens of the first
    check(longer.state, longer.tokens)

    branch = sequence("branch", [*prompt[:20], 60, 61])
    run(memory, branch)
    assert branch.cached_tokens == 0  # a sum cannot give back the last twelve
    check(branch.state, branch.tokens)

    memory.release(longer)
    assert (longer.computed, longer.state.nbytes) == (0, 0)
    run(memory, longer)  # recomputed
    check(longer.state, longer.tokens)
    for one in (longer, branch):
        memory.end(one, keep=False)
    assert memory.used == memory.prefixes.nbytes
