from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import EngineBusy
from faasmoe.readers.queue import FairQueue


def drained(queue: FairQueue[int]) -> list[int]:
    return [queue.pop() for _ in range(len(queue))]


def test_tenants_take_turns() -> None:
    queue: FairQueue[int] = FairQueue()
    for item in range(3):
        queue.put("a", item)
    queue.put("b", 10)
    queue.put("c", 20)
    assert [queue.pop(), queue.pop()] == [0, 10]
    queue.put("b", 11)
    assert drained(queue) == [20, 1, 11, 2]
    with pytest.raises(IndexError):
        queue.pop()


def test_who_waits_with_too_many_is_refused_and_nobody_else() -> None:
    queue: FairQueue[int] = FairQueue(most=4, most_each=2)
    queue.put("a", 0)
    queue.put("a", 1)
    with pytest.raises(EngineBusy, match="2 of this tenant's requests") as caught:
        queue.put("a", 2)
    assert caught.value.retry_after == 1.0
    queue.put("b", 3)
    queue.put("c", 4)
    with pytest.raises(EngineBusy, match="4 requests wait"):
        queue.put("d", 5)
    assert drained(queue) == [0, 3, 4, 1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_nobody_waits_longer_than_a_turn_of_each_other(steps: list[tuple[str, bool]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(most_each=60)
    since: dict[str, int] = {}  # others served while a tenant waited
    for number, (tenant, put) in enumerate(steps):
        if put:
            queue.put(tenant, (tenant, number))
            since.setdefault(tenant, 0)
        elif len(queue):
            served, _ = queue.pop()
            since = {t: n + 1 for t, n in since.items() if t != served}
            if any(waiting[0] == served for own in queue._waiting.values() for waiting in own):
                since[served] = 0
            assert all(n <= 2 for n in since.values())
