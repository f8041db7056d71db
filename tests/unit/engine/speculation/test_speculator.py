from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from faasmoe.engine.speculation.row_cost import RowCost
from faasmoe.engine.speculation.speculator import MOST_DRAFT, Speculator, best_length

CHEAP = 0.1  # of a step, for a row


def test_a_text_that_repeats_earns_drafts_and_one_that_does_not_gets_none() -> None:
    prompt = list(range(40))
    copies = Speculator(prompt, 200)
    lengths = []
    for token in range(10, 35):
        copies.note(token)
        lengths.append(len(copies.draft(100, CHEAP)))
    assert lengths[:4] == [0, 0, 0, 2]  # three tokens find the place, the fourth shows that it is right
    assert lengths[-1] == MOST_DRAFT
    assert copies.draft(100, CHEAP) == (35, 36, 37, 38, 39, 10, 11, 12)
    new = Speculator(prompt, 200)
    for token in range(100, 150):
        new.note(token)
        assert new.draft(100, 0.0) == ()


def test_wrong_guesses_end_drafts_and_right_ones_bring_them_back() -> None:
    speculator = Speculator([1, 2, 3, 4, 5] * 4, 400)
    for token in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5):
        speculator.note(token)
    assert len(speculator.draft(100, CHEAP)) == MOST_DRAFT
    chance = random.Random(1)
    for _ in range(20):  # the place is found each time, and what follows is new
        for token in (1, 2, 3, chance.randrange(100, 10**6)):
            speculator.note(token)
    assert speculator.acceptance < 0.2
    for token in (1, 2, 3):
        speculator.note(token)
    assert speculator.draft(100, 0.3) == ()
    while not speculator.draft(100, 0.3):
        speculator.note(chance.randrange(10, 12))
    assert speculator.acceptance > 0.3


def test_no_more_is_drafted_than_there_is_room_for() -> None:
    speculator = Speculator([1, 2, 3] * 5, 100)
    for token in [1, 2, 3] * 5:
        speculator.note(token)
    assert [len(speculator.draft(most, CHEAP)) for most in (0, 1, 3, 100)] == [0, 1, 3, MOST_DRAFT]


def test_nothing_is_drafted_before_the_first_token() -> None:
    assert Speculator([1, 2, 3] * 5, 100).draft(8, 0.0) == ()


@pytest.mark.parametrize(
    ("acceptance", "share", "length"),
    [(0.0, 0.0, 0), (1.0, 0.1, 8), (1.0, 1.0, 0), (0.5, 0.5, 0), (0.5, 0.45, 0), (0.5, 0.3, 1), (0.9, 0.02, 8)],
)
def test_length(acceptance: float, share: float, length: int) -> None:
    assert best_length(acceptance, share, 8) == length


def test_the_length_is_the_one_with_most_tokens_per_second() -> None:
    chance = random.Random(0)
    for _ in range(500):
        acceptance, share, most = chance.random(), chance.random(), chance.randrange(9)
        gains = [sum(acceptance**i for i in range(k + 1)) / (1 + k * share) for k in range(most + 1)]
        best = max(range(most + 1), key=gains.__getitem__)
        assert best_length(acceptance, share, most) == (best if gains[best] > 1.05 else 0)


def gain(prompt: str, text: str, fixed: float, a_row: float) -> float:
    """Tokens per second over those of single tokens, if steps take `fixed` seconds and `a_row` for each row."""
    words = re.compile(r"\w+|\s+|[^\w\s]")
    ids: dict[str, int] = {}
    asked, said = ([ids.setdefault(word, len(ids)) for word in words.findall(its)] for its in (prompt, text))
    speculator, cost, chance = Speculator(asked, len(asked) + len(said)), RowCost(), random.Random(0)
    done, took = 0, 0.0
    while done < len(said):
        draft = speculator.draft(len(said) - done - 1, cost.share(1))
        right = 0
        while right < len(draft) and draft[right] == said[done + right]:
            right += 1
        for token in said[done : done + 1 + right]:
            speculator.note(token)
        done += 1 + right
        seconds = (fixed + a_row * (1 + len(draft))) * chance.uniform(0.9, 1.1)
        cost.note(1 + len(draft), seconds)
        took += seconds
    return (fixed + a_row) * len(said) / took


ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("fixed", "a_row", "least"), [(0.054, 0.019, 1.5), (0.03, 0.003, 3.0), (0.02, 0.02, 1.3), (0.005, 0.02, 0.98)]
)
def test_text_that_is_copied_with_edits_gains(fixed: float, a_row: float, least: float) -> None:
    source = (ROOT / "src/faasmoe/engine/fair_share.py").read_text()
    assert gain(source, source.replace("tenant", "client"), fixed, a_row) > least


@pytest.mark.parametrize(("fixed", "a_row"), [(0.054, 0.019), (0.03, 0.003), (0.02, 0.02), (0.005, 0.02)])
@pytest.mark.parametrize("page", ["tenants.md", "platform.md", "performance.md"])
def test_text_that_is_new_loses_nothing_to_speak_of(page: str, fixed: float, a_row: float) -> None:
    text = (ROOT / "docs" / page).read_text()[:6000]
    assert gain(text[:3000], text[3000:], fixed, a_row) > 0.98
