from __future__ import annotations

from faasmoe.platforms.local.daemon.scarcity import Scarcity
from tests.unit.clocks import Clock


def test_each_failure_asks_for_a_pause_before_the_next_attempt() -> None:
    clock = Clock()
    scarcity = Scarcity(clock)
    assert not scarcity.lately
    scarcity.failed("no process")
    assert (scarcity.why, scarcity.due, scarcity.lately) == ("no process", True, True)
    assert 0 < scarcity.pause() <= 0.1
    assert not scarcity.due
    scarcity.failed("no process")
    assert scarcity.due
    assert 0.1 <= scarcity.pause() <= 0.2


def test_when_it_is_over_it_is_remembered_for_a_while() -> None:
    clock = Clock()
    scarcity = Scarcity(clock)
    scarcity.failed("no process")
    scarcity.over()
    assert (scarcity.why, scarcity.due, scarcity.lately) == ("", False, True)
    clock.now += 11
    assert not scarcity.lately
