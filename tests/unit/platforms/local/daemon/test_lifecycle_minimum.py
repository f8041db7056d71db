"""The minimum of instances of a function."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.platforms.local.daemon.pools import function_spec
from tests.unit.platforms.local.daemon.world import World


def test_a_minimum_is_started_and_lives_on() -> None:
    async def story(world: World) -> None:
        await world.until(lambda: len(world.pool.functions["f"].live) == 2)
        await asyncio.sleep(1000)
        assert len(world.pool.functions["f"].live) == 2
        assert world.counts("f") == {"cold_starts": 2}

    World(function_spec(min_instances=2, max_instances=2)).run(story)


def test_kept_instances_that_die_are_replaced_after_growing_pauses() -> None:
    async def story(world: World) -> None:
        pauses = []
        for _ in range(6):
            await world.until(lambda: any(r.pid for r in world.pool.instances.values()))
            (running,) = world.pool.instances.values()
            died = world.loop.now
            world.process(running).end(1)
            await world.until(lambda: bool(world.pool.instances))
            pauses.append(world.loop.now - died)
        assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4], abs=0.02)
        assert world.counts("f") == {"cold_starts": 7, "deaths": 6}

    World(function_spec(min_instances=1)).run(story)


def test_a_minimum_is_not_exceeded_when_its_instances_cannot_be_forked_at_first() -> None:
    async def story(world: World) -> None:
        world.zygote.refuses = ["no process can be forked"] * 3
        await asyncio.sleep(120)
        assert [running.kept for running in world.pool.instances.values()] == [True]

    World(function_spec(min_instances=1)).run(story)


def test_a_minimum_is_not_exceeded_after_it_was_deployed_with_another_spec() -> None:
    async def story(world: World) -> None:
        await world.until(lambda: any(r.record.mapped for r in world.pool.instances.values()))
        await world.life.install([function_spec(min_instances=1, concurrency=3)])
        await asyncio.sleep(120)
        (running,) = world.pool.instances.values()
        assert (running.kept, running.function.spec.concurrency) == (True, 3)

    World(function_spec(min_instances=1)).run(story)
