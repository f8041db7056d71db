"""What becomes of functions and their instances, on a fake zygote and a clock that nobody waits for."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from faasmoe.platforms.local.daemon import hibernation
from faasmoe.platforms.local.daemon.pool import Pool
from faasmoe.platforms.local.protocol.messages import NotDeployed, PlatformFailed, RequestRefused
from tests.unit.platforms.local.daemon.pools import CHARGE, function_spec, pool_of
from tests.unit.platforms.local.daemon.world import LOAD_SECONDS, START_SECONDS, STOPPED, World


def test_a_first_call_starts_the_zygote_and_an_instance() -> None:
    async def story(world: World) -> None:
        begun = world.loop.now
        running = await world.life.obtain("f")
        assert world.loop.now - begun == START_SECONDS
        assert world.pool.functions["f"].status().state == "starting"
        await world.until(lambda: running.pid is not None)
        await world.until(lambda: world.pool.functions["f"].status().state == "idle")
        assert await world.life.obtain("f") is running
        assert world.counts("f") == {"cold_starts": 1}

    World(function_spec()).run(story)


def test_an_unknown_function_is_refused() -> None:
    async def story(world: World) -> None:
        with pytest.raises(RequestRefused) as caught:
            await world.life.obtain("g")
        assert caught.value.error == NotDeployed("g")
        assert world.zygote.starts == 0

    World(function_spec()).run(story)


def test_a_zygote_that_cannot_be_started_is_an_error_of_the_platform() -> None:
    async def story(world: World) -> None:
        world.zygote.unusable = "its modules do not exist"
        with pytest.raises(RequestRefused) as caught:
            await world.life.obtain("f")
        assert caught.value.error == PlatformFailed("its modules do not exist")
        assert world.pool.waiting == 0

    World(function_spec()).run(story)


def test_an_instance_that_cannot_be_forked_is_tried_again_after_a_pause() -> None:
    async def story(world: World) -> None:
        world.zygote.refuses = ["no memory"]
        first = await world.life.obtain("f")
        await world.until(lambda: not world.pool.instances)
        assert world.life.trouble == "no process can be forked: no memory"
        second = await world.life.obtain("f")
        assert second is not first
        assert second.record.mapped  # it had to show that it has what it needs
        assert world.life.trouble == ""
        assert world.life.scarce_lately
        assert world.counts("f") == {"cold_starts": 2}  # no death: it was not the function's fault

    World(function_spec()).run(story)


def test_an_instance_that_dies_before_it_is_ready_is_counted_and_replaced() -> None:
    async def story(world: World) -> None:
        running = await world.life.obtain("f")
        await world.until(lambda: running.pid is not None)
        world.process(running).end(3)
        assert world.counts("f") == {"cold_starts": 1, "deaths": 1}
        assert world.pool.functions["f"].last_end == "it ended with status 3"
        assert await world.life.obtain("f") is not running

    World(function_spec()).run(story)


def test_an_instance_that_dies_while_it_works_is_replaced_and_its_calls_are_kept() -> None:
    async def story(world: World) -> None:
        running = await world.loaded("f")
        process = world.process(running)
        process.begin()
        process.answer()
        process.begin()
        process.end(-9)
        status = world.pool.functions["f"].status()
        assert (status.state, status.invocations, status.deaths) == ("zero", 1, 1)
        assert "SIGKILL" in world.pool.functions["f"].last_end
        assert await world.loaded("f") is not running

    World(function_spec()).run(story)


def test_a_zygote_that_dies_takes_all_instances_with_it_and_comes_back() -> None:
    async def story(world: World) -> None:
        world.zygote.forks = True
        await world.loaded("f")
        world.zygote.forks = False
        starting = await world.life.obtain("g")
        assert starting.pid is None
        world.zygote.end("killed")
        assert world.pool.instances == {}
        assert world.life.trouble == "the process that forks instances was lost: killed"
        assert (world.counts("f")["deaths"], world.counts("g")["deaths"]) == (1, 1)
        await world.until(lambda: world.zygote.up)  # nobody has called
        world.zygote.forks = True
        await world.loaded("g")
        assert world.life.trouble == ""
        assert world.zygote.starts == 2

    World(function_spec("f"), function_spec("g")).run(story)


def test_who_prewarms_hears_of_an_instance_that_died_too() -> None:
    async def story(world: World) -> None:
        await world.life.zygote_ready()
        world.zygote.forks = False
        prewarmed = asyncio.ensure_future(world.life.prewarm("f"))
        await world.until(lambda: bool(world.pool.instances))
        assert not prewarmed.done()
        world.zygote.end("killed")
        await prewarmed

    World(function_spec()).run(story)


# Ends that are intended


def test_draining_lets_a_call_finish() -> None:
    async def story(world: World) -> None:
        running = await world.loaded("f")
        process = world.process(running)
        process.begin()
        await world.life.stop([running.function])
        assert process.alive  # it takes no calls any more
        assert await world.life.obtain("f") is not running
        process.answer()
        assert not process.alive
        assert "deaths" not in world.counts("f")

    World(function_spec()).run(story)


def test_an_instance_that_does_not_end_when_told_to_is_killed() -> None:
    async def story(world: World) -> None:
        running = await world.loaded("f")
        world.zygote.deaf = True
        world.life.drain(running)
        await asyncio.sleep(34)
        assert world.zygote.killed == []
        await asyncio.sleep(2)
        assert world.zygote.killed == [running.number]
        assert world.pool.instances == {}

    World(function_spec()).run(story)


def test_idle_instances_end_after_their_keep_alive() -> None:
    async def story(world: World) -> None:
        await world.loaded("brief")
        await world.loaded("default")
        await world.loaded("forever")
        await asyncio.sleep(5)
        assert [len(f.instances) for f in world.pool.functions.values()] == [0, 1, 1]
        await asyncio.sleep(1000)
        assert [len(f.instances) for f in world.pool.functions.values()] == [0, 0, 1]
        assert all("deaths" not in f.counts for f in world.pool.functions.values())

    World(
        function_spec("brief", keep_alive=3.0),
        function_spec("default"),
        function_spec("forever", keep_alive=math.inf),
    ).run(story)


def test_zygote_and_daemon_are_not_needed_when_nothing_has_run_for_long() -> None:
    async def story(world: World) -> None:
        await world.loaded("f")
        await asyncio.sleep(60 + 299)
        assert world.unneeded == []
        await asyncio.sleep(2)
        assert len(world.unneeded) == 1

    World(function_spec(), zygote_keep_alive=300.0).run(story)


def test_one_call_within_that_time_begins_it_anew() -> None:
    async def story(world: World) -> None:
        await world.loaded("f")
        await asyncio.sleep(290)
        await world.loaded("f")
        await asyncio.sleep(25)  # since the first has ended, 300 seconds have passed, and nothing runs
        assert world.pool.instances == {}
        assert world.unneeded == []
        await asyncio.sleep(290)
        assert len(world.unneeded) == 1

    World(function_spec(keep_alive=10.0), zygote_keep_alive=300.0).run(story)


# Another spec


def test_a_function_deployed_again_as_it_was_keeps_its_instances() -> None:
    async def story(world: World) -> None:
        running = await world.loaded("f")
        await world.life.install([function_spec()])
        assert await world.life.obtain("f") is running

    World(function_spec()).run(story)


def test_a_function_deployed_with_another_spec_replaces_what_runs() -> None:
    async def story(world: World) -> None:
        old = await world.loaded("f")
        process = world.process(old)
        process.begin()
        await world.life.install([function_spec(concurrency=3)])
        assert old.draining
        new = await world.life.obtain("f")
        assert new.function.spec.concurrency == 3
        process.answer()
        await world.until(lambda: len(world.pool.instances) == 1)
        assert world.pool.functions["f"].counts["cold_starts"] == 1

    World(function_spec()).run(story)


# Hanging


def test_an_instance_that_is_stopped_is_killed_and_replaced() -> None:
    async def story(world: World) -> None:
        watching = world.life.spawn(world.life.watch.run())
        running = await world.loaded("f")
        await asyncio.sleep(20)
        assert running.path in world.pool.instances
        world.states[running.pid or 0] = STOPPED
        await world.until(lambda: not world.pool.instances)
        assert world.pool.functions["f"].last_end == "it was stopped"
        assert world.counts("f") == {"cold_starts": 1, "deaths": 1}
        assert await world.loaded("f") is not running
        watching.cancel()

    World(function_spec()).run(story)


def test_a_call_that_was_given_up_ends_only_an_instance_that_was_busy_all_the_time() -> None:
    async def story(world: World) -> None:
        running = await world.loaded("f")
        process = world.process(running)
        world.life.stuck(running, 2.0)  # it is idle
        process.begin()
        await asyncio.sleep(1)
        world.life.stuck(running, 2.0)  # it works, for less long
        assert process.alive
        await asyncio.sleep(1.5)
        world.life.stuck(running, 2.0)
        assert not process.alive
        assert world.pool.functions["f"].last_end == "a call was not answered within 2 s"

    World(function_spec()).run(story)


# What is counted


def test_what_is_counted_survives_a_rest(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for status in (0, 1):
            process = world.process(await world.loaded("f"))
            process.begin()
            process.answer()
            process.end(status)

    world = World(function_spec())
    world.run(story)
    hibernation.leave(tmp_path, world.pool, round(world.loop.now * 1e9))
    next_pool: Pool = pool_of(None, function_spec())
    hibernation.take_up(tmp_path, next_pool)
    status = next_pool.functions["f"].status()
    assert (status.invocations, status.cold_starts, status.deaths) == (2, 2, 1)
    assert next_pool.ended == world.pool.ended
    assert next_pool.ended.instance_gb_seconds == pytest.approx(2 * CHARGE / 1e9 * LOAD_SECONDS, rel=0.1)
