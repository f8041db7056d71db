"""Lifecycle without processes: what becomes of activations when instances cannot be started."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from faasmoe.platforms.local.daemon import lifecycle as module
from faasmoe.platforms.local.daemon.lifecycle import Lifecycle
from faasmoe.platforms.local.daemon.pool import InstanceState
from faasmoe.platforms.local.daemon.scarcity import Scarcity
from faasmoe.platforms.local.options import LocalOptions
from tests.unit.clocks import Clock
from tests.unit.platforms.local.daemon.pools import function_spec, pool_of


class Zygote:
    """Always ready; starts what it is told, unless `refuse` says why it cannot."""

    def __init__(self, _: object, listener: Any) -> None:
        self.up, self.trouble, self.pid, self.owes = True, "", None, False
        self.listener = listener

    async def ready(self) -> None:
        pass

    def memory(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Plan(Lifecycle):
    """Starting an instance fails with each of `failures`, then works."""

    failures: list[OSError]

    def _start(self, function: Any, kept: bool) -> InstanceState:
        if self.failures and not function.instances:
            raise self.failures.pop(0)
        running = InstanceState(function, f"/{function.spec.name}", module.StatsTable().take()[1], kept, pid=1)
        running.record.mapped = running.record.last_used = 1
        self._pool.add(running)
        return running

    def drain(self, running: InstanceState) -> None:
        running.draining = True
        asyncio.get_running_loop().call_soon(self._gone, running)

    def _gone(self, running: InstanceState) -> None:
        self._pool.remove(running, "", 0)
        self._change.set()


@pytest.fixture
def life(tmp_path: Path) -> Plan:
    pool = pool_of(None, *(function_spec(name) for name in "abc"))
    plan = Plan(pool, tmp_path, LocalOptions(), lambda: None, zygote=Zygote)
    plan.failures = []
    return plan


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC])
def test_idle_instances_make_room_when_no_more_can_be_started(life: Plan, number: int) -> None:
    async def run() -> None:
        await life.obtain("a")
        await life.obtain("b")
        life.failures = [OSError(number, os.strerror(number))] * 2
        running = await asyncio.wait_for(life.obtain("c"), 30)
        assert running.function.spec.name == "c"

    asyncio.run(run())
    counts = [life._pool.functions[name].counts["evictions"] for name in "abc"]
    assert counts == [1, 1, 0]
    assert life.trouble == ""
    assert life.scarce_lately


def test_who_waits_for_room_in_vain_learns_why(life: Plan) -> None:
    async def run() -> None:
        life.failures = [OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))] * 1000
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(life.obtain("c"), 0.3)

    asyncio.run(run())
    assert life.trouble == os.strerror(errno.EAGAIN)
    assert len(life.failures) > 990  # it did not try all the time
    assert life._pool.waiting == 0


def test_a_failure_of_long_ago_is_no_trouble(life: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(life, "_scarcity", Scarcity(clock))
    life._scarcity.failed("no process")
    assert life.trouble == "no process"
    clock.now += 11  # nobody has called since: the next call shall be let in
    assert life.trouble == ""
