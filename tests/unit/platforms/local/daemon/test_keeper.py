from __future__ import annotations

import asyncio

import pytest

from faasmoe.platforms.local.daemon import keeper as module
from faasmoe.platforms.local.daemon.keeper import Keeper
from faasmoe.platforms.local.daemon.pool import InstanceState
from faasmoe.platforms.local.protocol.messages import PlatformFailed, RequestRefused
from tests.unit.platforms.local.daemon.pools import function_spec, pool_of, start


class Starter:
    """Refuses some times."""

    closing = False
    trouble = ""

    def __init__(self, refusals: int) -> None:
        self.pool, self.refusals, self.asked = pool_of(None, function_spec("f")), refusals, 0

    async def obtain(self, name: str, kept: bool = False) -> InstanceState:
        self.asked += 1
        if self.asked <= self.refusals:
            raise RequestRefused(PlatformFailed("no process"))
        return start(self.pool, self.pool.functions[name], kept)


def test_a_minimum_is_restored_when_that_is_possible_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSES", (0.001, 0.002))
    starter = Starter(20)
    asyncio.run(asyncio.wait_for(Keeper(starter.pool, starter).keep("f"), 30))
    assert starter.asked == 21
    assert [running.kept for running in starter.pool.instances.values()] == [True]


def test_a_function_that_was_removed_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSES", (0.001, 0.002))
    starter = Starter(1000)

    async def run() -> None:
        keeping = asyncio.ensure_future(Keeper(starter.pool, starter).keep("f"))
        await asyncio.sleep(0.05)
        starter.pool.functions.clear()
        await asyncio.wait_for(keeping, 30)

    asyncio.run(run())
    assert starter.pool.instances == {}
