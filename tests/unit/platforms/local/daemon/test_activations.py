"""What becomes of activations when instances cannot be started, in virtual time."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from faasmoe.platforms.local.daemon.activations import Scarcity
from faasmoe.platforms.local.protocol.messages import RequestRefused
from tests.unit.clocks import Clock
from tests.unit.platforms.local.daemon.pools import function_spec
from tests.unit.platforms.local.daemon.world import World


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC])
def test_idle_instances_make_room_when_no_more_can_be_started(number: int) -> None:
    async def story(world: World) -> None:
        await world.loaded("a")
        await world.loaded("b")
        world.refusals = [refusal(number)] * 2
        running = await asyncio.wait_for(world.life.obtain("c"), 30)
        assert running.function.spec.name == "c"
        assert [world.pool.functions[name].counts["evictions"] for name in "abc"] == [1, 1, 0]
        assert world.life.trouble == ""
        assert world.life.scarce_lately

    World(*map(function_spec, "abc")).run(story)


def test_who_waits_for_room_in_vain_learns_why() -> None:
    async def story(world: World) -> None:
        world.refusals = [refusal(errno.EAGAIN)] * 1000
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.life.obtain("c"), 60)
        assert world.life.trouble == os.strerror(errno.EAGAIN)
        assert 50 < 1000 - len(world.refusals) < 130  # it did not try all the time
        assert world.pool.waiting == 0
        await asyncio.sleep(11)  # nobody has called since: the next call shall be let in
        assert world.life.trouble == ""

    World(function_spec("c")).run(story)


def test_busy_instances_are_left_alone_when_no_more_can_be_started() -> None:
    async def story(world: World) -> None:
        running = await world.loaded("a")
        world.process(running).begin()
        world.refusals = [refusal(errno.EMFILE)] * 3
        assert (await world.life.obtain("b")).record.mapped  # it had to show that it has what it needs
        assert not running.draining

    World(function_spec("a"), function_spec("b")).run(story)


def test_one_that_loads_slowly_after_a_scarcity_is_handed_out_all_the_same() -> None:
    async def story(world: World) -> None:
        await world.life.zygote_ready()
        world.zygote.loads = False
        world.refusals = [refusal(errno.EAGAIN)]
        begun = world.loop.now
        running = await world.life.obtain("a")
        assert not running.record.mapped
        assert 5 <= world.loop.now - begun < 7
        assert world.life.trouble == ""

    World(function_spec("a")).run(story)


def test_activations_that_wait_for_memory_are_served_in_their_order() -> None:
    async def story(world: World) -> None:
        first = await world.loaded("a")
        served: list[str] = []

        async def call(name: str) -> None:
            running = await world.life.obtain(name)
            await world.until(lambda: bool(running.record.mapped))
            served.append(name)
            process = world.process(running)
            process.begin()
            await asyncio.sleep(1)
            process.answer()

        world.process(first).begin()
        waiting = []
        for name in "bcd":
            waiting.append(asyncio.ensure_future(call(name)))
            await asyncio.sleep(0.1)
        assert (served, world.pool.waiting) == ([], 3)
        world.process(first).answer()
        await asyncio.gather(*waiting)
        assert served == ["b", "c", "d"]

    World(*map(function_spec, "abcd"), budget=function_spec().memory + (20 << 20)).run(story)


def test_a_function_that_is_removed_while_its_caller_waits_is_refused() -> None:
    async def story(world: World) -> None:
        running = await world.loaded("a")
        world.process(running).begin()
        waiting = asyncio.ensure_future(world.life.obtain("b"))
        await asyncio.sleep(0.1)
        del world.pool.functions["b"]
        world.process(running).answer()
        with pytest.raises(RequestRefused):
            await waiting
        assert world.pool.waiting == 0

    World(function_spec("a"), function_spec("b"), budget=function_spec().memory + (20 << 20)).run(story)


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
