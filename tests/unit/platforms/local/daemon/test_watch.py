"""The daemon's watch over a pool and a zygote that no process stands behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from faasmoe.platforms.local.daemon.pool import InstanceState, Pool
from faasmoe.platforms.local.daemon.watch import Watch
from faasmoe.util.liveness import TICK, ProcessState
from tests.unit.clocks import Clock, run
from tests.unit.platforms.local.daemon.pools import function_spec, pool_of, start

STOPPED, IDLE = ProcessState(True, False, 1.0), ProcessState(False, False, 1.0)


@dataclass
class Zygote:
    pid: int | None = 7
    owes: bool = False
    answers: bool = True
    ended: list[str] = field(default_factory=list)

    def ping(self) -> None:
        self.owes = not self.answers

    def end(self, cause: str) -> None:
        self.ended.append(cause)


class World:
    """What the watch sees and does."""

    def __init__(self, functions: int = 1) -> None:
        self.clock, self.zygote = Clock(), Zygote()
        self.states: dict[int, ProcessState] = {}
        self.read: list[int] = []
        self.killed: list[tuple[str, str]] = []
        self.pool: Pool = pool_of(None, *(function_spec(f"f{i}") for i in range(functions)))
        self.running: list[InstanceState] = [start(self.pool, f) for f in self.pool.functions.values()]
        for pid, running in enumerate(self.running, 100):
            running.pid = pid
        zygote: Any = self.zygote
        self.watch = Watch(self.pool, zygote, self._kill, self._read, self.clock)

    def _read(self, pid: int, threads: bool) -> ProcessState | None:
        self.read.append(pid)
        return self.states.get(pid, IDLE)

    def _kill(self, running: InstanceState, cause: str) -> None:
        running.fault = cause
        self.killed.append((running.function.spec.name, cause))

    def ticks(self, count: int, pause: float = TICK) -> None:
        for _ in range(count):
            self.clock.now += pause
            self.watch.tick()


def test_nobody_who_waits_for_calls_is_suspected() -> None:
    world = World(3)
    world.ticks(1000)
    assert world.killed == world.zygote.ended == []


def test_a_stopped_instance_is_killed_once_whether_it_is_called_or_not() -> None:
    world = World(3)
    world.states = {100: STOPPED, 102: STOPPED}
    world.running[2].record.in_flight = 1
    world.ticks(1)
    assert world.killed == []
    world.ticks(5)
    assert sorted(world.killed) == [("f0", "it was stopped"), ("f2", "it was stopped")]


def test_a_stopped_zygote_is_killed() -> None:
    world = World()
    world.states = {7: STOPPED}
    world.ticks(2)
    assert world.zygote.ended == ["it was stopped"]


def test_a_zygote_that_does_not_answer_is_killed() -> None:
    world = World()
    world.zygote.answers = False
    world.ticks(8)
    assert world.zygote.ended == []
    world.ticks(4)
    assert world.zygote.ended == ["it does nothing and does not answer"]


def test_a_zygote_that_starts_may_take_its_time() -> None:
    world = World()
    world.zygote.ping = lambda: None  # type: ignore[method-assign] # not up yet: nothing is asked
    world.ticks(500)
    assert world.zygote.ended == []


def test_nobody_is_killed_after_all_were_frozen() -> None:
    """All are stopped, the watch too; it is the first to go on, and the others do before its next look."""
    world = World(3)
    for _ in range(20):
        world.states = dict.fromkeys((7, 100, 101, 102), STOPPED)
        world.zygote.answers = False
        world.running[0].record.in_flight = 1
        world.watch.suspect(world.running[0], 0.001)
        world.ticks(1, pause=70.0)
        world.states = {}
        world.zygote.answers = True
        world.zygote.owes = False
        world.ticks(1)
    assert world.killed == world.zygote.ended == []


def test_a_suspected_instance_that_does_nothing_is_killed() -> None:
    world = World()
    world.running[0].record.in_flight = 1
    world.ticks(100)
    assert world.killed == []  # nobody waits for it
    world.watch.suspect(world.running[0], 0.001)
    world.ticks(8)
    assert world.killed == [("f0", "it does nothing and does not answer")]


def test_a_suspected_instance_that_answers_calls_lives() -> None:
    world = World()
    record = world.running[0].record
    record.in_flight = 2
    for _ in range(50):
        world.watch.suspect(world.running[0], 0.001)
        world.ticks(4)
        record.invocations += 1
    assert world.killed == []


@pytest.mark.parametrize(("expected", "limit"), [(0.001, 5), (1.0, 20)])
def test_a_suspected_instance_may_compute_for_long_but_not_for_ever(expected: float, limit: int) -> None:
    world = World()
    world.running[0].record.in_flight = 1
    seconds = 0
    while not world.killed:
        world.states = {100: ProcessState(False, True, float(seconds))}
        world.watch.suspect(world.running[0], expected)  # again and again, which does not begin anew
        world.ticks(1)
        seconds += 1
    assert limit <= seconds <= limit + 2
    assert "does not answer" in world.killed[0][1]


def test_a_suspected_instance_that_gets_no_core_lives() -> None:
    world = World()
    world.running[0].record.in_flight = 1
    world.states = {100: ProcessState(False, True, 3.0)}
    world.watch.suspect(world.running[0], 0.001)
    world.ticks(1000)
    assert world.killed == []


def test_an_instance_that_does_not_take_its_duty_is_killed() -> None:
    world = World()
    world.running[0].record.forked = world.running[0].record.mapped = 0
    world.ticks(7)
    assert world.killed == [("f0", "it does nothing and does not answer")]


def test_of_many_idle_instances_some_are_looked_at_in_each_tick() -> None:
    world = World(250)
    world.ticks(1)
    assert len(world.read) == 51
    world.ticks(4)
    assert {*world.read} == {7, *range(100, 350)}
    world.states = {150: STOPPED}
    world.ticks(6)  # once it was seen, it is looked at each time
    assert world.killed == [("f50", "it was stopped")]


def test_it_looks_twice_a_second_and_goes_on_after_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    world = World(2)
    looks: list[float] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()

        def read(pid: int, threads: bool) -> ProcessState | None:
            if pid == 7:
                looks.append(loop.time())
            if len(looks) < 5:
                raise RuntimeError("a defect")
            return world._read(pid, threads)

        zygote: Any = world.zygote
        watch = Watch(world.pool, zygote, world._kill, read, loop.time)
        watching = asyncio.ensure_future(watch.run())
        world.states = {101: STOPPED}
        await asyncio.sleep(10)
        watching.cancel()

    run(story())
    assert {later - earlier for earlier, later in pairwise(looks)} == {TICK}
    assert world.killed[0] == ("f1", "it was stopped")
    assert caplog.text.count("looking after processes: RuntimeError: a defect") == 1


def test_what_has_ended_is_forgotten() -> None:
    world = World(2)
    world.ticks(1)
    world.pool.remove(world.running[0], "", 0)
    world.ticks(1)
    assert list(world.watch._watched) == [world.running[1].path]
