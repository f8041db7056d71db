"""Evidence that a process hangs, judged by looks and by ticks. No time passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.util.liveness import (
    TICK,
    HangJudge,
    HangLimits,
    HeartbeatMonitor,
    ProcessState,
    SilenceLimits,
    read_state,
)
from tests.unit.clocks import Clock

STOPPED = ProcessState(True, False, 1.0)
IDLE = ProcessState(False, False, 1.0)
SILENCE = SilenceLimits(stopped=3, asleep=9, working=30)
NO_PROCESS = 2**22 + 1  # beyond the largest process id


class Judged:
    """A judge whose looks come on time, unless told otherwise."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.judge = HangJudge(HangLimits(idle_looks=4, cpu_seconds=10.0), self.clock)

    def check(self, state: ProcessState | None, owes: bool, after: float = TICK) -> str:
        self.clock.now += after
        return self.judge.check(state, owes)


def test_a_stopped_process_hangs_after_two_looks() -> None:
    it = Judged()
    assert [it.check(STOPPED, owes=False) for _ in range(2)] == ["", "it was stopped"]


def test_one_that_was_stopped_for_a_moment_does_not() -> None:
    it = Judged()
    assert not any(it.check(state, owes=False) for state in (STOPPED, IDLE) * 20)


def test_who_owes_nothing_may_be_idle() -> None:
    it = Judged()
    assert not any(it.check(IDLE, owes=False) for _ in range(1000))


def test_who_is_idle_and_owes_an_answer_hangs() -> None:
    it = Judged()
    it.check(IDLE, owes=True)
    assert [it.check(IDLE, owes=True) for _ in range(4)] == ["", "", "", "it does nothing and does not answer"]


def test_who_waits_for_a_core_or_a_disk_does_not_hang() -> None:
    it = Judged()
    assert not any(it.check(ProcessState(False, True, 1.0), owes=True) for _ in range(1000))


@pytest.mark.parametrize("state", [lambda i: ProcessState(False, False, i / 100),
                                   lambda i: ProcessState(False, False, 1.0, faults=i)])  # fmt: skip
def test_who_computes_or_reads_a_little_does_not_hang(state: Callable[[int], ProcessState]) -> None:
    it = Judged()
    assert not any(it.check(state(i), owes=True) for i in range(900))


def test_who_computes_for_ever_without_answering_hangs() -> None:
    it = Judged()
    causes = [it.check(ProcessState(False, True, i / 2), owes=True) for i in range(22)]
    assert causes.index("it has computed for 10 s and does not answer") == 20


def test_an_answer_clears_all_suspicion() -> None:
    it = Judged()
    looks = [it.check(ProcessState(False, True, float(i)), owes=i % 9 > 0) for i in range(100)]
    assert not any(looks)


def test_whoever_cannot_be_looked_at_is_not_judged() -> None:
    it = Judged()
    assert not any(it.check(None, owes=True) for _ in range(100))
    assert [it.check(STOPPED, owes=True) for _ in range(2)] == ["", "it was stopped"]


def test_a_look_that_comes_late_begins_anew() -> None:
    it = Judged()
    it.check(STOPPED, owes=False)
    assert not it.judge.late
    assert it.check(STOPPED, owes=False, after=70.0) == ""
    assert it.judge.late
    assert it.check(STOPPED, owes=False, after=3 * TICK) == "it was stopped"
    assert not it.judge.late


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_nobody_is_judged_by_looks_that_all_came_late(looks: list[tuple[bool, bool]]) -> None:
    it = Judged()
    for stopped, owes in looks:
        assert it.check(ProcessState(stopped, False, 1.0), owes, after=2.1) == ""


STATES = st.one_of(
    st.none(), st.builds(ProcessState, stopped=st.booleans(), runnable=st.booleans(), cpu=st.just(1.0))
)


@given(st.lists(st.tuples(STATES, st.booleans(), st.sampled_from([TICK, 4 * TICK, 70.0]))))
def test_nobody_hangs_without_evidence(looks: list[tuple[ProcessState | None, bool, float]]) -> None:
    """Whatever was seen before: a verdict needs two looks at a stopped process, or four at an idle one, all on time."""
    it = Judged()
    on_time: list[tuple[ProcessState, bool]] = []
    for state, owes, after in looks:
        cause = it.check(state, owes, after)
        if it.judge.late:
            on_time = []
        if state is not None:
            on_time.append((state, owes))
        if cause == "it was stopped":
            assert [seen.stopped for seen, _ in on_time[-2:]] == [True, True]
        elif cause:
            last = on_time[-4:]
            assert len(last) == 4
            assert not any(seen.stopped or seen.runnable for seen, _ in last)
            assert all(owed for _, owed in last)


def test_the_state_of_this_process() -> None:
    state = read_state(os.getpid(), threads=True)
    assert state is not None
    assert state.runnable
    assert not state.stopped
    assert state.cpu > 0
    assert state.faults >= 0


def test_a_process_that_does_not_exist_has_no_state() -> None:
    assert read_state(NO_PROCESS) is None


def read_of(states: Iterator[ProcessState | None]) -> Callable[[int, bool], ProcessState | None]:
    return lambda *_: next(states)


def always(state: ProcessState | None) -> Iterator[ProcessState | None]:
    while True:
        yield state


def working(looks: int = 10**9) -> Iterator[ProcessState | None]:
    """A process that works at so many looks, and then idles."""
    yield from (ProcessState(False, False, float(i)) for i in range(looks))
    yield from always(ProcessState(False, False, float(looks)))


def monitor(states: Iterator[ProcessState | None]) -> HeartbeatMonitor:
    it = HeartbeatMonitor(SILENCE, read_of(states))
    it.watch(7)
    return it


def lost_after(it: HeartbeatMonitor, most: int = 200) -> tuple[float, str]:
    """Seconds until it is lost, and what is said of it."""
    for tick in range(1, most + 1):
        if lost := it.tick():
            return tick * TICK, lost
    raise AssertionError(f"not lost after {most} ticks")


def test_one_that_is_stopped_and_silent_is_lost_soon() -> None:
    assert lost_after(monitor(always(STOPPED))) == (3, "was stopped, and silent for 3 s")


@pytest.mark.parametrize("state", [IDLE, None])
def test_one_of_which_nothing_moves_is_lost_later(state: ProcessState | None) -> None:
    assert lost_after(monitor(always(state))) == (9, "was silent for 9 s")


def test_one_whose_process_is_unknown_counts_as_asleep() -> None:
    assert lost_after(HeartbeatMonitor(SILENCE)) == (9, "was silent for 9 s")


def test_one_that_works_gets_more_time() -> None:
    assert lost_after(monitor(working())) == (30, "was silent for 30 s")


def test_one_that_stops_working_is_lost_when_it_has_slept() -> None:
    assert lost_after(monitor(working(10)))[0] == 3 + 10 * TICK + 6


def test_a_heartbeat_begins_anew() -> None:
    it = monitor(always(IDLE))
    for _ in range(20):
        assert [it.tick() for _ in range(17)] == [""] * 17
        it.beat()
    assert lost_after(it)[0] == 9


def test_other_limits_begin_anew() -> None:
    it = monitor(always(IDLE))
    assert [it.tick() for _ in range(17)] == [""] * 17
    it.expect(SilenceLimits(stopped=1, asleep=4, working=5))
    assert lost_after(it)[0] == 4


def test_nobody_is_looked_at_who_is_not_silent() -> None:
    it = monitor(iter(()))
    assert [it.tick() for _ in range(5)] == [""] * 5
