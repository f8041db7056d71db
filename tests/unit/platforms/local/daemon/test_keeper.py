"""A minimum of instances, which is restored whatever becomes of them, in virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from faasmoe.platforms.local.daemon.keeper import Keeper
from faasmoe.platforms.local.daemon.pool import InstanceState
from faasmoe.platforms.local.protocol.messages import PlatformFailed, RequestRefused
from tests.unit.clocks import run
from tests.unit.platforms.local.daemon.pools import function_spec, pool_of, start


class Starter:
    """Refuses some times, or keeps its callers waiting."""

    closing = False
    trouble = ""

    def __init__(self, refusals: int = 0, waits: int = 0) -> None:
        self.pool = pool_of(None, function_spec("f", min_instances=1))
        self.refusals, self.waits = refusals, waits
        self.asked: list[float] = []  # when

    async def obtain(self, name: str, kept: bool = False) -> InstanceState:
        loop = asyncio.get_running_loop()
        self.asked.append(loop.time())
        if len(self.asked) <= self.waits:
            await loop.create_future()
        if len(self.asked) <= self.refusals:
            raise RequestRefused(PlatformFailed("no process"))
        return start(self.pool, self.pool.functions[name], kept)

    async def keep(self) -> None:
        loop = asyncio.get_running_loop()
        await Keeper(self.pool, self, loop.time).keep("f")

    def kept(self) -> list[bool]:
        return [running.kept for running in self.pool.instances.values()]


def test_a_minimum_is_restored_when_that_is_possible_again() -> None:
    starter = Starter(refusals=20)
    run(starter.keep())
    assert starter.kept() == [True]
    pauses = [later - earlier for earlier, later in pairwise(starter.asked)]
    assert len(pauses) == 20
    assert pauses[0] <= 0.1
    assert all(15 <= pause <= 30 for pause in pauses[10:])


def test_one_that_gets_no_memory_gives_way_to_callers_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    starter = Starter(waits=2)
    run(starter.keep())
    assert starter.kept() == [True]
    first, second, third = starter.asked
    assert 10 < second - first <= 10.1
    assert 10 < third - second <= 10.2
    assert "fewer instances than its minimum: no memory for one" in caplog.text


@pytest.mark.parametrize(("deaths", "pause"), [(0, 0.0), (1, 0.2), (5, 3.2), (9, 30.0), (10_000, 30.0)])
def test_one_that_dies_again_and_again_is_started_after_growing_pauses(deaths: int, pause: float) -> None:
    starter = Starter()
    starter.pool.functions["f"].counts["deaths"] = deaths

    async def story() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await starter.keep()
        return loop.time() - begun

    assert run(story()) == pytest.approx(pause)
    assert starter.kept() == [True]


@pytest.mark.parametrize("removed", [True, False])
def test_nothing_is_kept_of_a_function_that_was_removed_or_while_the_daemon_ends(removed: bool) -> None:
    starter = Starter(refusals=1000)

    async def story() -> None:
        keeping = asyncio.ensure_future(starter.keep())
        await asyncio.sleep(60)
        if removed:
            starter.pool.functions.clear()
        else:
            starter.closing = True
        await asyncio.wait_for(keeping, 31)
        asked = len(starter.asked)
        await starter.keep()
        assert len(starter.asked) == asked < 20

    run(story())
    assert starter.pool.instances == {}
