"""Whatever happens to instances, their zygote and the system, in whatever order: the books stay right, and all calls
that wait get an instance once it is possible again."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.local.daemon.pool import InstanceState
from tests.unit.platforms.local.daemon.pools import MIB, function_spec
from tests.unit.platforms.local.daemon.world import STOPPED, FakeInstance, World

NAMES = ("a", "b", "large", "kept")
SPECS = (
    function_spec("a", max_instances=2),
    function_spec("b", keep_alive=2.0),
    function_spec("large", memory=30 * MIB),
    function_spec("kept", min_instances=1),
)
BUDGET = 70 * MIB  # four instances, or one large and two others
PICK = st.integers(0, 99)


def sockets() -> set[str]:
    """Those that this process has open."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it was that of the folder
            found.add(os.readlink(path))
    return {each for each in found if each.startswith("socket:")}


class Lives(RuleBasedStateMachine):
    """A daemon's world to which anything may happen. After each step all have run as far as they can at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sockets = sockets()
        self.world = World(*SPECS, budget=BUDGET)
        self.life, self.pool, self.loop = self.world.life, self.world.pool, self.world.loop
        self.calls: list[asyncio.Task[InstanceState]] = []  # that wait for an instance
        self.do(self.life.install(SPECS))
        self.watching = self.loop.create_task(self.life.watch.run())

    def do(self, work: Any, seconds: float = 0.001) -> None:
        async def story() -> None:
            await work
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(story())
        self.calls = [call for call in self.calls if not call.done()]

    def at_once(self, action: Any, *arguments: Any) -> None:
        async def story() -> None:
            action(*arguments)

        self.do(story())

    def process(self, pick: int) -> FakeInstance:
        return self.world.zygote.instances[pick % len(self.world.zygote.instances)]

    def instance(self, pick: int) -> InstanceState | None:
        return self.life._numbers.get(self.process(pick).number)

    def has_processes(self) -> bool:
        return any(process.pid for process in self.world.zygote.instances)

    def has_calls(self) -> bool:
        return bool(self.calls)

    @rule(name=st.sampled_from(NAMES))
    def call(self, name: str) -> None:
        async def story() -> None:
            self.calls.append(self.loop.create_task(self.life.obtain(name)))

        self.do(story())

    @precondition(has_calls)
    @rule(pick=PICK)
    def give_up(self, pick: int) -> None:
        self.at_once(self.calls[pick % len(self.calls)].cancel)

    @rule(seconds=st.sampled_from([0.1, 0.6, 3.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @precondition(has_processes)
    @rule(pick=PICK)
    def begin(self, pick: int) -> None:
        self.at_once(self.process(pick).begin)

    @precondition(has_processes)
    @rule(pick=PICK)
    def answer(self, pick: int) -> None:
        process = self.process(pick)
        if process.record.in_flight:
            self.at_once(process.answer)

    @precondition(has_processes)
    @rule(pick=PICK, status=st.sampled_from([0, 1, -9, os.EX_TEMPFAIL]))
    def die(self, pick: int, status: int) -> None:
        self.at_once(self.process(pick).end, status)

    @precondition(has_processes)
    @rule(pick=PICK)
    def freeze(self, pick: int) -> None:
        self.world.states[self.process(pick).pid] = STOPPED

    @precondition(has_processes)
    @rule(pick=PICK)
    def suspect(self, pick: int) -> None:
        if running := self.instance(pick):
            self.at_once(self.life.watch.suspect, running, 0.01)

    @precondition(has_processes)
    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        if running := self.instance(pick):
            self.at_once(self.life.drain, running)

    @rule(name=st.sampled_from(NAMES))
    def stop(self, name: str) -> None:
        self.at_once(self.life.spawn, self.life.stop([self.pool.functions[name]]))

    @rule(spec=st.sampled_from(SPECS), keep_alive=st.sampled_from([2.0, 60.0]))
    def deploy(self, spec: FunctionSpec, keep_alive: float) -> None:
        self.at_once(self.life.spawn, self.life.install([replace(spec, keep_alive=keep_alive)]))

    @precondition(lambda self: self.world.zygote.up)
    @rule()
    def end_zygote(self) -> None:
        self.at_once(self.world.zygote.end, "killed")

    @rule()
    def refuse_fork(self) -> None:
        self.world.zygote.refuses.append("no process can be forked")

    @rule(number=st.sampled_from([errno.EMFILE, errno.EAGAIN]))
    def refuse_descriptors(self, number: int) -> None:
        self.world.refusals.append(OSError(number, os.strerror(number)))

    @invariant()
    def the_budget_is_kept(self) -> None:
        assert self.pool.own <= self.pool.used <= BUDGET

    @invariant()
    def the_books_agree_with_each_other_and_with_the_processes(self) -> None:
        paths = set(self.pool.instances)
        assert paths == set(self.life._channels)
        assert list(self.pool.instances.values()) == list(self.life._numbers.values())
        assert all(each in each.function.instances for each in self.pool.instances.values())
        assert paths >= {each.path for function in self.pool.functions.values() for each in function.instances}
        pids = {process.number: process.pid or None for process in self.world.zygote.instances}
        assert pids == {number: running.pid for number, running in self.life._numbers.items()}

    @invariant()
    def only_callers_and_the_keeper_wait(self) -> None:
        assert self.pool.waiting <= len(self.calls) + 1

    def teardown(self) -> None:
        """Nothing is in the way any more, and calls are answered as soon as they come."""
        self.world.zygote.refuses.clear()
        self.world.refusals.clear()
        for _ in range(60):
            for process in list(self.world.zygote.instances):
                while process.alive and process.record.in_flight:
                    self.at_once(process.answer)
            self.do(asyncio.sleep(1))
        assert self.calls == []
        assert [running.kept for running in self.pool.functions["kept"].live].count(True) == 1
        self.watching.cancel()
        self.do(self.life.close(1.0))
        for task in list(self.life._tasks):
            task.cancel()
        self.do(asyncio.sleep(0))
        self.loop.close()
        self.life._table.close()
        self.the_books_agree_with_each_other_and_with_the_processes()
        assert self.pool.instances == {}
        assert sockets() == self.sockets


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
