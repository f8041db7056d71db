from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import UNLIMITED, SequenceState, StateSpec
from tests.unit.running_sum import RunningSumSpec

LAYER = KVCacheSpec(1, 1, 2, torch.float32, torch.float32)  # 12 bytes a token
ATTENTION = StateSpec({0: LAYER, 3: LAYER})
MIXED = StateSpec({0: LAYER, 1: RunningSumSpec(), 3: LAYER})


def add(state: SequenceState, tokens: list[int]) -> None:
    """As a step of the model would: every layer sees the tokens."""
    key = torch.tensor(tokens, dtype=torch.float32).view(1, -1, 1)
    for layer, kept in state.layers.items():
        if layer == 1:
            kept.add(tokens)
        else:
            kept.append(key + layer, torch.cat([key, -key], -1))


def check(state: SequenceState, tokens: list[int]) -> None:
    for layer, kept in state.layers.items():
        assert kept.length == len(tokens)
        if layer == 1:
            assert int(kept.total) == sum(tokens)
        else:
            keys, values = kept.keys[0, : kept.length, 0], kept.values[0, : kept.length]
            assert keys.tolist() == [token + layer for token in tokens]
            assert values.tolist() == [[token, -token] for token in tokens]


doing = st.lists(
    st.tuples(
        st.sampled_from(["add", "truncate", "copy", "free"]),
        st.lists(st.integers(0, 99), min_size=1, max_size=9),
        st.integers(0, 20),
        st.integers(0, 2),
    ),
    max_size=40,
)


@pytest.mark.parametrize("spec", [ATTENTION, MIXED])
@given(doing)
@settings(deadline=None)
def test_states_hold_what_a_list_of_tokens_holds(
    spec: StateSpec, doing: list[tuple[str, list[int], int, int]]
) -> None:
    states, lists = [spec.allocate() for _ in range(3)], [list[int]() for _ in range(3)]
    for what, tokens, count, i in doing:
        state, held = states[i], lists[i]
        if what == "add":
            state.reserve(max(state.capacity, len(held) + len(tokens)))
            add(state, tokens)
            held += tokens
        elif what == "truncate" and count <= len(held):
            left = state.truncate(count)
            assert left == (count if spec.truncatable or count == len(held) else 0)
            del held[left:]
        elif what == "copy" and count <= len(held):
            to = (i + 1) % 3
            states[to] = spec.allocate()
            states[to].reserve(count)
            copied = states[to].copy_from(state, count)
            assert copied == (count if spec.truncatable or count == len(held) else 0)
            lists[to] = held[:copied]
        elif what == "free":
            states[i], lists[i] = spec.allocate(), []
        for one, its in zip(states, lists, strict=True):
            check(one, its)
            assert one.nbytes <= spec.nbytes(one.capacity) or not one.capacity


@given(st.integers(0, 10_000), st.sampled_from([ATTENTION, MIXED]))
def test_the_tokens_that_fit_are_the_most_that_fit(nbytes: int, spec: StateSpec) -> None:
    tokens = spec.tokens_within(nbytes)
    assert spec.nbytes(tokens) <= nbytes
    assert spec.nbytes(tokens + 1) > nbytes


def test_sizes_are_those_of_all_layers_and_the_largest_that_grows_twice() -> None:
    assert [MIXED.nbytes(tokens) for tokens in (0, 1, 5)] == [0, 8 + 3 * 12, 8 + 5 * 3 * 12]
    assert [ATTENTION.nbytes(tokens) for tokens in (0, 1, 5)] == [0, 3 * 12, 5 * 3 * 12]
    constant = StateSpec({1: RunningSumSpec()})
    assert (constant.tokens_within(7), constant.tokens_within(8)) == (0, UNLIMITED)
    assert StateSpec({}).tokens_within(0) == UNLIMITED


@dataclass(frozen=True)
class Window(KVCacheSpec):
    """A made-up kind: a KV cache of the last four tokens."""

    def nbytes(self, tokens: int) -> int:
        return super().nbytes(min(tokens, 4))


def test_sizes_need_not_grow_with_each_token() -> None:
    window = Window(LAYER.heads, LAYER.key_dim, LAYER.value_dim, LAYER.key_dtype, LAYER.value_dtype)
    spec = StateSpec({0: window, 1: RunningSumSpec()})
    assert [spec.nbytes(tokens) for tokens in (1, 4, 5, 1 << 40)] == [8 + 24, 8 + 96, 8 + 96, 8 + 96]
    assert [spec.tokens_within(nbytes) for nbytes in (31, 32, 103, 104)] == [0, 1, 3, UNLIMITED]
    assert [spec.tokens_held(1040, length) for length in (1, 4, 40)] == [32, 40, 400]


def test_bytes_hold_so_many_tokens_of_sequences_of_a_length() -> None:
    for nbytes in (0, 35, 36, 10**6 + 1, 1 << 50):
        assert ATTENTION.tokens_held(nbytes, 4096) == nbytes // 36  # whatever the length
    assert StateSpec({}).tokens_held(7, 4096) == 7


def test_a_state_that_cannot_be_truncated_is_reused_whole_or_not_at_all() -> None:
    assert [ATTENTION.reusable(5, common) for common in (0, 4, 5, 9)] == [0, 4, 5, 5]
    assert [MIXED.reusable(5, common) for common in (0, 4, 5, 9)] == [0, 0, 5, 5]


def test_a_layer_takes_no_more_than_was_reserved() -> None:
    state = ATTENTION.allocate()
    state.reserve(2)
    with pytest.raises(ValueError, match="3 tokens; 2 are reserved"):
        add(state, [1, 2, 3])
