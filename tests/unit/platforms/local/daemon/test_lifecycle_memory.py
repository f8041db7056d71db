"""Instances that make room, and calls that wait for memory."""

from __future__ import annotations

import asyncio

import pytest

from faasmoe.platforms.local.daemon.pool import INSTANCE_BYTES
from faasmoe.platforms.local.protocol.messages import RequestRefused
from tests.unit.platforms.local.daemon.pools import CHARGE, function_spec
from tests.unit.platforms.local.daemon.world import World


def test_the_least_valuable_idle_instance_makes_room() -> None:
    async def story(world: World) -> None:
        for name, calls in (("often", 5), ("seldom", 1)):
            process = world.process(await world.loaded(name))
            for _ in range(calls):
                process.begin()
                process.answer()
        await world.loaded("new")
        assert world.counts("seldom") == {"cold_starts": 1, "invocations": 1, "evictions": 1}
        assert "evictions" not in world.counts("often")

    two = 2 * CHARGE + 2 * INSTANCE_BYTES  # and the zygote's pre-forked workers
    World(*map(function_spec, ("often", "seldom", "new")), budget=two).run(story)


def test_who_waits_for_memory_gets_it_when_a_call_is_answered() -> None:
    async def story(world: World) -> None:
        process = world.process(await world.loaded("busy"))
        process.begin()
        waiting = asyncio.ensure_future(world.life.obtain("new"))
        await asyncio.sleep(11)  # between two looks that no report asks for
        assert not waiting.done()
        assert world.pool.waiting == 1
        answered = world.loop.now
        process.answer()
        assert (await waiting).function.spec.name == "new"
        assert world.loop.now == answered  # the instance was asked to report
        assert world.pool.waiting == 0
        assert world.counts("busy")["evictions"] == 1

    World(function_spec("busy"), function_spec("new"), budget=CHARGE + 2 * INSTANCE_BYTES).run(story)


def test_who_waits_for_memory_in_vain_leaves_nothing_behind() -> None:
    async def story(world: World) -> None:
        process = world.process(await world.loaded("busy"))
        process.begin()
        begun = world.loop.now
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await world.life.obtain("new")
        assert world.loop.now - begun == pytest.approx(5)
        assert world.pool.waiting == 0
        assert not process.record.report
        assert "cold_starts" not in world.counts("new")
        process.answer()

    World(function_spec("busy"), function_spec("new"), budget=CHARGE + 2 * INSTANCE_BYTES).run(story)


def test_a_function_that_can_never_fit_is_refused_at_once() -> None:
    async def story(world: World) -> None:
        with pytest.raises(RequestRefused, match="but the memory budget is"):
            await world.life.obtain("f")

    World(function_spec(), budget=CHARGE).run(story)
