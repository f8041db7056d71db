from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.busy_time import BusyTime


@given(st.lists(st.tuples(st.integers(0, 10**9), st.booleans(), st.integers(0, 9)), max_size=40))
def test_shares_add_up_to_the_time_in_which_any_call_ran(events: list[tuple[int, bool, int]]) -> None:
    busy, now, union = BusyTime(), 1000, 0
    running: list[int] = []
    shares = []
    for later, begins, which in events:
        union += later if running else 0
        now += later
        if begins:
            running.append(busy.begin(now))
        elif running:
            shares.append(busy.end(now, running.pop(which % len(running))))
    shares += [busy.end(now, begun) for begun in running]
    assert 0 <= union - sum(shares) <= len(events) ** 2  # rounded down, to nanoseconds


def test_calls_at_once_share_and_idle_time_is_nobodys() -> None:
    busy = BusyTime()
    long = busy.begin(0)
    short = busy.begin(100)
    assert busy.end(300, short) == 100
    assert busy.end(350, long) == 100 + 100 + 50
    again = busy.begin(10_000)
    assert busy.end(10_007, again) == 7
