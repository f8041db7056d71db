from __future__ import annotations

import pytest
import torch

from faasmoe.model.state.recurrent_state import RecurrentSpec, RecurrentState, StatePart
from faasmoe.model.state.sequence_state import SequenceState, StateSpec

SPEC = RecurrentSpec(
    (StatePart("convolution 0", (6, 4), torch.bfloat16), StatePart("recurrence 0", (2, 3), torch.float32))
)
NBYTES = 6 * 4 * 2 + 2 * 3 * 4


def filled(tokens: int, reserved: int = 50) -> RecurrentState:
    state = SPEC.allocate()
    state.reserve(reserved)
    state.advance(tokens)
    for tensor in state.tensors.values():
        tensor.copy_(torch.randn(tensor.shape))
    return state


def same(one: RecurrentState, other: RecurrentState) -> bool:
    return all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_it_takes_the_same_memory_for_any_number_of_tokens() -> None:
    assert {SPEC.nbytes(0), SPEC.nbytes(1), SPEC.nbytes(1 << 20), SPEC.allocate().nbytes} == {NBYTES}


def test_it_keeps_all_tokens_or_none() -> None:
    state = filled(10)
    assert (state.truncate(9), state.length) == (False, 10)
    assert (state.truncate(10), state.length) == (True, 10)
    assert (state.truncate(0), state.length) == (True, 0)


def test_only_all_tokens_are_copied() -> None:
    state, copy = filled(10), SPEC.allocate()
    copy.reserve(10)
    assert not copy.copy_from(state, 9)
    assert (copy.copy_from(state, 10), copy.length, same(copy, state)) == (True, 10, True)
    state.tensors["recurrence 0"].zero_()
    assert not same(copy, state)


def test_no_more_tokens_than_are_reserved() -> None:
    state = filled(3, reserved=4)
    state.advance(1)
    with pytest.raises(ValueError, match="5 tokens; 4 are reserved"):
        state.advance(1)
    assert state.length == 4


def test_a_step_that_fails_half_way_leaves_nothing_to_go_on_from() -> None:
    spec = StateSpec({0: SPEC, "model.layers.0.conv": SPEC})
    assert not spec.truncatable
    state: SequenceState = spec.allocate()
    state.reserve(8)
    for its in state.layers.values():
        its.advance(5)
    state.layers[0].advance(2)  # of the second layer a step has not come to
    assert state.truncate(5) == 0
    assert [its.length for its in state.layers.values()] == [0, 0]
