from __future__ import annotations

from faasmoe.util.backoff import Backoff
from tests.unit.clocks import Clock


def backoff(clock: Clock, chance: float = 1.0) -> Backoff:
    return Backoff(0.1, 8.0, calm=10.0, clock=clock, chance=lambda: chance)


def test_pauses_grow_to_a_limit_and_never_end() -> None:
    it = backoff(Clock())
    assert [round(it.failed(), 1) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0, 8.0]


def test_chance_takes_half_at_most() -> None:
    assert backoff(Clock(), chance=0.0).failed() == 0.05


def test_what_has_lived_begins_with_the_shortest_pause() -> None:
    clock = Clock()
    it = backoff(clock)
    for _ in range(5):
        it.failed()
    clock.now += it.left + 9.0
    assert it.failed() == 3.2
    clock.now += it.left + 10.1
    assert it.failed() == 0.1


def test_a_success_begins_anew() -> None:
    it = backoff(Clock())
    it.failed()
    it.success()
    assert it.failed() == 0.1


def test_what_is_left_of_a_pause() -> None:
    clock = Clock()
    it = backoff(clock)
    assert it.left == 0
    it.failed()
    clock.now += 0.04
    assert round(it.left, 3) == 0.06
    clock.now += 1
    assert it.left == 0
