from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.speculation.lookup import LEAST, PromptLookup


def lookup_of(tokens: list[int], prompt: int = 1, limit: int | None = None) -> PromptLookup:
    """Of `tokens`, of which so many are the prompt."""
    lookup = PromptLookup(tokens[:prompt], limit or len(tokens))
    for token in tokens[prompt:]:
        lookup.append(token)
    return lookup


def alike(tokens: list[int], period: int) -> int:
    """How many of the last tokens are equal to those `period` tokens before them."""
    count = 0
    while count + period < len(tokens) and tokens[-1 - count] == tokens[-1 - count - period]:
        count += 1
    return count


texts = st.lists(st.integers(0, 2), min_size=2, max_size=60)


@given(texts, st.data())
def test_a_guess_is_what_followed_an_earlier_run_of_the_last_tokens(
    tokens: list[int], data: st.DataObject
) -> None:
    lookup = lookup_of(tokens, data.draw(st.integers(1, len(tokens) - 1)))
    guess = lookup.guess(data.draw(st.integers(1, 12)))
    copies = [period for period in range(1, len(tokens)) if alike(tokens, period) >= LEAST]
    both = [*tokens, *guess]
    if guess:
        assert any(all(both[i] == both[i - period] for i in range(len(tokens), len(both))) for period in copies)
    else:
        assert copies == []


@given(texts, st.data())
def test_it_does_not_matter_which_tokens_are_the_prompt_if_the_last_was_not_expected(
    tokens: list[int], data: st.DataObject
) -> None:
    one, other = (lookup_of(tokens, data.draw(st.integers(1, len(tokens) - 1)), 100) for _ in range(2))
    assert one.append(7) in (False, None)
    other.append(7)
    assert one.guess(9) == other.guess(9) == ()


def test_the_longest_run_is_taken_then_the_latest() -> None:
    assert lookup_of([1, 2, 3, 4, 9, 0, 2, 3, 4, 8, 1, 2, 3, 4]).guess(2) == (9, 0)
    assert lookup_of([2, 3, 4, 9, 5, 2, 3, 4, 8, 6, 2, 3, 4]).guess(2) == (8, 6)
    assert lookup_of([2, 3, 9, 9, 2, 3]).guess(2) == ()


def test_a_place_is_followed_as_long_as_it_is_right() -> None:
    lookup = lookup_of([1, 2, 3, 4, 5, 6, 7, 1, 2], prompt=8, limit=20)
    assert lookup.append(3) is None
    assert lookup.guess(9) == (4, 5, 6, 7, 1, 2, 3, 4, 5)
    assert lookup.append(4) is True
    assert lookup.append(5) is True
    assert lookup.guess(2) == (6, 7)
    assert lookup.append(9) is False
    assert lookup.guess(2) == ()


def test_a_repetition_goes_on() -> None:
    assert lookup_of([5, 5, 5, 5]).guess(3) == (5, 5, 5)
    assert lookup_of([1, 2, 1, 2, 1]).guess(5) == (2, 1, 2, 1, 2)


@pytest.mark.parametrize("token", [0, 300_000])
def test_ids_of_any_vocabulary_are_told_apart(token: int) -> None:
    assert lookup_of([token, token + 1, 7, 4, token, token + 1, 7]).guess(1) == (4,)
    assert lookup_of([token, token, 7, 4, token, token + 1, 7]).guess(1) == ()
    assert lookup_of([0, 0, 7, 4]).guess(1) == ()
    assert lookup_of([7, 4, 0, 7]).guess(1) == ()  # nothing stands before the first token, not even token 0
