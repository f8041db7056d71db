from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.daemon.eviction import Candidate, victims

SIZES = st.integers(0, 100)


@st.composite
def candidates(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> list[Candidate]:
    count = draw(st.integers(0, 12))
    keys = draw(st.permutations(range(count)))
    return [
        Candidate(
            key=key,
            uses=draw(st.integers(0, 1000)),
            idle_seconds=draw(st.floats(0, 1e6)),
            nbytes=draw(sizes),
            cold_start_seconds=draw(st.floats(1e-3, 1e3)),
        )
        for key in keys
    ]


@given(candidates(), st.integers(1, 1300))
def test_the_chosen_free_enough_and_none_is_chosen_needlessly(given_: list[Candidate], nbytes: int) -> None:
    sizes = {c.key: c.nbytes for c in given_}
    chosen = victims(given_, nbytes)
    if chosen is None:
        assert sum(sizes.values()) < nbytes
        return
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(sizes)
    freed = sum(sizes[key] for key in chosen)
    assert freed >= nbytes
    assert all(freed - sizes[key] < nbytes for key in chosen)


@given(candidates(st.just(7)), st.integers(1, 90))
def test_of_equal_size_the_least_valuable_go(given_: list[Candidate], nbytes: int) -> None:
    chosen = victims(given_, nbytes)
    if chosen is None:
        assert 7 * len(given_) < nbytes
        return
    assert len(chosen) == -(-nbytes // 7)
    gone = [c.value for c in given_ if c.key in chosen]
    left = [c.value for c in given_ if c.key not in chosen]
    assert not left or max(gone) <= min(left)


@given(candidates(), st.integers(max_value=0))
def test_nothing_goes_when_nothing_is_missing(given_: list[Candidate], nbytes: int) -> None:
    assert victims(given_, nbytes) == []


@given(candidates(), st.integers(1, 1300), st.randoms())
def test_the_order_of_the_candidates_does_not_matter(given_: list[Candidate], nbytes: int, random: Random) -> None:
    shuffled = given_[:]
    random.shuffle(shuffled)
    assert victims(given_, nbytes) == victims(shuffled, nbytes)


def test_a_large_one_that_suffices_spares_the_small_ones() -> None:
    small = Candidate(key=0, uses=1, idle_seconds=100, nbytes=10, cold_start_seconds=0.1)
    large = Candidate(key=1, uses=100, idle_seconds=1, nbytes=100, cold_start_seconds=1)
    assert small.value < large.value
    assert victims([small, large], 10) == [0]
    assert victims([small, large], 11) == [1]
    assert victims([small, large], 101) == [0, 1]
    assert victims([small, large], 111) is None


def test_value_grows_with_use_and_cost_and_falls_with_idling_and_size() -> None:
    usual = Candidate(key=0, uses=10, idle_seconds=5, nbytes=1000, cold_start_seconds=0.1)
    assert replace(usual, uses=11).value > usual.value
    assert replace(usual, idle_seconds=4).value > usual.value
    assert replace(usual, nbytes=999).value > usual.value
    assert replace(usual, cold_start_seconds=0.2).value > usual.value
    assert replace(usual, uses=0).value == 0
    assert replace(usual, key=3).value == usual.value


def test_value_is_finite_for_one_that_takes_nothing() -> None:
    assert Candidate(key=0, uses=6, idle_seconds=1, nbytes=0, cold_start_seconds=0.5).value == 1.5
