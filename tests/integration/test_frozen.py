"""Orchestrators and the process that forks them, stopped by a signal: others take their places, and soon."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from faasmoe.errors import EngineStopped
from faasmoe.experts import PRELOAD
from faasmoe.fleet.fleet import Fleet
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import FleetOptions
from tests.integration.test_private import LONG, fleet_on, orchestrators, submit, template, text
from tests.waiting import alive, wait_until

# Seconds until what hangs is replaced; with the 4 s that the model takes to load, 10 until an answer.
BESIDES = 6.0


async def answer(fleet: Fleet, wanted: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        assert await text(await submit(fleet, "a", 8)) == wanted


def freeze(pid: int) -> int:
    os.kill(pid, signal.SIGSTOP)
    return pid


@pytest.mark.alone  # it judges how soon
def test_what_is_frozen_is_replaced(tmp_path: Path) -> None:
    async def test(pool: LocalPlatform) -> None:
        began = time.monotonic()
        async with fleet_on(tmp_path, pool, FleetOptions()) as fleet:
            wanted = await text(await submit(fleet, "a", 8))
            most = BESIDES + time.monotonic() - began  # this machine may be busy

            running = await submit(fleet, "a", LONG)
            await anext(running)
            (orchestrator,) = orchestrators()
            freeze(orchestrator)
            async with asyncio.timeout(most):
                with pytest.raises(EngineStopped, match="was stopped, and silent for 3 s"):
                    await text(running)
            await answer(fleet, wanted, most)

            forking = template()
            assert forking is not None
            freeze(forking.pid)
            await answer(fleet, wanted, most)  # its orchestrator does not need it
            (orchestrator,) = orchestrators()
            os.kill(orchestrator, signal.SIGKILL)
            await answer(fleet, wanted, most)
            assert not forking.is_running()

            forking = template()
            assert forking is not None
            everybody = [freeze(orchestrators()[0]), freeze(forking.pid)]
            began = time.monotonic()
        assert time.monotonic() - began < most
        assert template() is None
        assert wait_until(lambda: not any(map(alive, everybody)))

    with start("local", PRELOAD) as pool:
        asyncio.run(test(pool))
