from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.util.hang import TICK, Judge, Look, Ticks, look_at
from tests.unit.clocks import Clock

STOPPED = Look(True, False, 1.0)
IDLE = Look(False, False, 1.0)


def judge() -> Judge:
    return Judge(silent_looks=4, cpu_seconds=10.0)


def test_a_stopped_process_hangs_after_two_looks() -> None:
    it = judge()
    assert [it.hangs(STOPPED, owes=False) for _ in range(2)] == ["", "it was stopped"]


def test_one_that_was_stopped_for_a_moment_does_not() -> None:
    it = judge()
    assert not any(it.hangs(look, owes=False) for look in (STOPPED, IDLE) * 20)


def test_who_owes_nothing_may_be_idle() -> None:
    it = judge()
    assert not any(it.hangs(IDLE, owes=False) for _ in range(1000))


def test_who_is_idle_and_owes_an_answer_hangs() -> None:
    it = judge()
    it.hangs(IDLE, owes=True)
    assert [it.hangs(IDLE, owes=True) for _ in range(4)] == ["", "", "", "it does nothing and does not answer"]


def test_who_waits_for_a_core_or_a_disk_does_not_hang() -> None:
    it = judge()
    assert not any(it.hangs(Look(False, True, 1.0), owes=True) for _ in range(1000))


def test_who_computes_a_little_does_not_hang() -> None:
    it = judge()
    assert not any(it.hangs(Look(False, False, i / 100), owes=True) for i in range(900))


def test_who_computes_for_ever_without_answering_hangs() -> None:
    it = judge()
    causes = [it.hangs(Look(False, True, i / 2), owes=True) for i in range(22)]
    assert causes.index("it has computed for 10 s and does not answer") == 20


def test_an_answer_clears_all_suspicion() -> None:
    it = judge()
    looks = [it.hangs(Look(False, True, float(i)), owes=i % 9 > 0) for i in range(100)]
    assert not any(looks)


def test_a_watcher_that_was_late_begins_anew() -> None:
    it = judge()
    it.hangs(STOPPED, owes=False)
    it.forget()
    assert it.hangs(STOPPED, owes=False) == ""


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_nobody_is_judged_by_looks_that_all_came_late(looks: list[tuple[bool, bool]]) -> None:
    it = judge()
    for stopped, owes in looks:
        it.forget()
        assert it.hangs(Look(stopped, False, 1.0), owes) == ""


def test_late_ticks() -> None:
    clock = Clock()
    ticks = Ticks(clock)
    lateness = []
    for pause in (TICK, 3 * TICK, 70.0, TICK):
        clock.now += pause
        lateness.append(ticks.late())
    assert lateness == [False, False, True, False]


def test_a_look_at_this_process() -> None:
    look = look_at(os.getpid(), threads=True)
    assert look is not None
    assert look.runnable
    assert not look.stopped
    assert look.cpu > 0


def test_a_look_at_nobody() -> None:
    assert look_at(1 << 30) is None
