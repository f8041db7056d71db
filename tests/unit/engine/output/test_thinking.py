from __future__ import annotations

import pytest

from faasmoe.engine.output.thinking import ThinkingLimit
from faasmoe.protocol.request import ThinkingBudget

BEGIN, BLANK, END = (7,), (6,), (8, 9)


def play(begin: tuple[int, ...], tokens: int, wanted: list[int]) -> list[int]:
    """The tokens that come if the model wants these."""
    limit = ThinkingLimit(ThinkingBudget(begin=begin, blank=BLANK, end=END, tokens=tokens))
    found = []
    for token in wanted:
        forced = limit.forced()
        found.append(token if forced is None else forced)
        limit.note(found[-1])
    return found


@pytest.mark.parametrize(
    ("begin", "tokens", "wanted", "found"),
    [
        (BEGIN, 2, [7, 1, 2, 3, 4, 5], [7, 1, 2, 8, 9, 5]),
        ((), 2, [1, 2, 3, 4, 5], [1, 2, 8, 9, 5]),
        ((), 0, [1, 2, 3], [8, 9, 3]),
        (BEGIN, 0, [7, 1, 2, 3], [7, 8, 9, 3]),
        (BEGIN, 1, [1, 2, 3, 4], [1, 2, 3, 4]),
        (BEGIN, 9, [7, 1, 8, 9, 4, 5, 6, 1, 2, 3, 4, 5, 6], [7, 1, 8, 9, 4, 5, 6, 1, 2, 3, 4, 5, 6]),
        (BEGIN, 1, [6, 6, 7, 1, 2, 3, 4], [6, 6, 7, 1, 8, 9, 4]),
        (BEGIN, 1, [6, 1, 7, 2, 3], [6, 1, 7, 2, 3]),
        ((7, 5), 1, [7, 5, 1, 2, 3, 4], [7, 5, 1, 8, 9, 4]),
        ((7, 5), 1, [7, 6, 5, 2, 3], [7, 6, 5, 2, 3]),
        ((), 3, [1, 8, 9, 2, 3, 4], [1, 8, 9, 2, 3, 4]),
    ],
)
def test_reasoning_ends_at_its_budget(
    begin: tuple[int, ...], tokens: int, wanted: list[int], found: list[int]
) -> None:
    assert play(begin, tokens, wanted) == found
