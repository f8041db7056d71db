from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.tenancy.limits.sliding_window import SECONDS, SlidingWindow

GAPS = st.lists(st.tuples(st.floats(0, 40), st.integers(1, 12)), max_size=60)


@given(GAPS, st.integers(12, 30))
def test_no_minute_has_more_than_the_limit_and_nobody_waits_longer_than_said(
    tries: list[tuple[float, int]], limit: int
) -> None:
    window, now, admitted = SlidingWindow(), 0.0, []
    for gap, amount in tries:
        now += gap
        wait = window.wait(amount, limit, now)
        assert 0 <= wait <= SECONDS
        if wait:
            before = window.wait(amount, limit, now + wait * 0.99) if wait > 0.01 else 1
            assert before > 0
            now += wait + 1e-6
            assert window.wait(amount, limit, now) == 0
        window.add(amount, now)
        admitted.append((now, amount))
        in_window = sum(each for when, each in admitted if when + SECONDS > now)
        assert in_window <= window.total(now) <= limit
    assert window.total(now + SECONDS) == 0
    assert window.reset(now + SECONDS) == 0


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=2000))
def test_memory_is_bounded_by_time(gaps: list[float]) -> None:
    window, now = SlidingWindow(), 0.0
    for gap in gaps:
        now += gap
        window.add(1, now)
    assert window.total(now) == len(gaps)
    assert len(window._slots) <= sum(gaps) / 0.1 + 1


def test_what_is_taken_back_was_never_there() -> None:
    window = SlidingWindow()
    window.add(5, 1.0)
    window.add(3, 1.05)
    window.add(2, 9.0)
    window.take_back(3, 1.05)
    assert window.total(9.0) == 7
    window.take_back(2, 9.0)
    window.take_back(1, 5.0)  # of no slot
    assert window.total(10.0) == 5
    assert window.total(61.1) == 0
    window.take_back(5, 1.0)  # forgotten already
    assert window.total(61.1) == 0


def test_when_the_window_is_empty_again() -> None:
    window = SlidingWindow()
    assert window.reset(0.0) == 0
    window.add(1, 10.0)
    window.add(1, 40.0)
    assert window.reset(50.0) == 50
