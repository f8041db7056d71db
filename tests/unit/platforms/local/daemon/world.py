"""A world for the daemon's heart: virtual time, and a zygote that forks no process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.local.daemon.lifecycle import Lifecycle
from faasmoe.platforms.local.daemon.pool import InstanceState, Pool
from faasmoe.platforms.local.daemon.zygote import Listener
from faasmoe.platforms.local.daemon.zygote_client import ZygoteFailed
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.protocol.payloads import Duty
from faasmoe.platforms.local.protocol.stats_page import InstanceStats, map_page
from faasmoe.util.forkserver.messages import Ended, Forked, ForkFailed
from faasmoe.util.liveness import ProcessState
from tests.unit.clocks import VirtualLoop

START_SECONDS = 2.0  # of a zygote
LOAD_SECONDS = 0.5  # of an instance
IDLE = ProcessState(stopped=False, runnable=False, cpu=1.0)
STOPPED = ProcessState(stopped=True, runnable=False, cpu=1.0)


class FakeInstance:
    """A process, as the daemon sees it: a pid, a record, and a socket that closes when it ends."""

    def __init__(self, zygote: FakeZygote, number: int, duty: Duty, fds: Sequence[int]) -> None:
        self.number = number
        self.pid = 0
        self.alive = True
        self._zygote = zygote
        self._keep_alive = duty.keep_alive
        self._channel = socket.socket(fileno=os.dup(fds[1]))
        self._page = map_page(fds[2], duty.slot)
        self.record = InstanceStats.from_buffer(self._page)

    def fork(self, pid: int) -> None:
        self.pid = pid
        self.record.forked = self._zygote.now()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel, self._told_to_end)
        if self._zygote.loads:
            loop.call_later(LOAD_SECONDS, self._load)

    def _load(self) -> None:
        if self.alive:
            self.record.mapped = self._zygote.now()
            self._report()
            self._idle()

    def begin(self) -> None:
        """A call has come."""
        self.record.in_flight += 1
        self.record.busy_since = self._zygote.now()

    def answer(self) -> None:
        """A call is answered."""
        self.record.in_flight -= 1
        self.record.invocations += 1
        self._report()
        if self.record.draining:
            self.end(0)
        else:
            self._idle()

    def _report(self) -> None:
        if self.record.report:
            self._channel.send(b".")

    def _idle(self) -> None:
        self.record.last_used = self._zygote.now()
        if self._keep_alive is not None:
            used = int(self.record.last_used)
            asyncio.get_running_loop().call_later(self._keep_alive, self._expire, used)

    def _expire(self, used: int) -> None:
        if self.alive and not self.record.in_flight and self.record.last_used == used:
            self.end(0)

    def _told_to_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        self.record.draining = 1
        if not self.record.in_flight and not self._zygote.deaf:
            self.end(0)
        else:
            self._channel.send(b".")

    def end(self, status: int) -> None:
        """It ends, and the zygote tells."""
        if self.alive:
            self.vanish()
            self._zygote.instances.remove(self)
            self._zygote.listener(Ended(self.number, status))

    def vanish(self) -> None:
        self.alive = False
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()


class FakeZygote:
    """See `Zygote`. What goes wrong is set by tests."""

    def __init__(self, _: Sequence[str], listener: Listener) -> None:
        self.listener = listener
        self.up, self.owes, self.trouble = False, False, ""
        self.unusable = ""  # why it can never be started
        self.refuses: list[str] = []  # why the next instances cannot be forked
        self.forks = self.loads = True  # instances, when told to
        self.deaf = False  # its instances do not end when told to
        self.starts = 0
        self.killed: list[int] = []  # numbers
        self.instances: list[FakeInstance] = []
        self.pid: int | None = None
        self._pids = 100
        self._numbers = 0

    def now(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e9)

    async def ready(self) -> None:
        if self.unusable:
            raise ZygoteFailed(self.unusable)
        if not self.up:
            await asyncio.sleep(START_SECONDS)
        if not self.up:
            self.up, self.trouble, self.pid = True, "", 7
            self.starts += 1

    def start(self, duty: Duty, descriptors: Sequence[int]) -> int:
        self._numbers += 1
        instance = FakeInstance(self, self._numbers, duty, descriptors)
        self.instances.append(instance)
        if self.forks:
            asyncio.get_running_loop().call_soon(self.fork, instance)
        return self._numbers

    def kill(self, number: int) -> None:
        self.killed.append(number)
        for instance in [one for one in self.instances if one.number == number]:
            instance.end(-9)

    def fork(self, instance: FakeInstance) -> None:
        if instance not in self.instances:
            return
        if self.refuses:
            instance.vanish()
            self.instances.remove(instance)
            self.listener(ForkFailed(instance.number, self.refuses.pop(0)))
            return
        self._pids += 1
        instance.fork(self._pids)
        self.listener(Forked(instance.number, self._pids))

    def ping(self) -> None:
        self.owes = False

    def memory(self) -> int:
        return 0

    def end(self, cause: str) -> None:
        """It dies, and its instances with it."""
        for instance in self.instances:
            instance.vanish()
        self.instances.clear()
        self.up, self.pid, self.trouble = False, None, f"the process that forks instances was lost: {cause}"
        self.listener(None)

    def close(self) -> None:
        if self.up:
            self.end("the platform is ending")


class World:
    """A pool, its lifecycle, and what stands behind them."""

    def __init__(
        self, *specs: FunctionSpec, budget: int | None = None, folder: Path | None = None, **options: Any
    ):
        self.loop = VirtualLoop()
        self.pool = Pool(budget)
        self.unneeded: list[float] = []  # when the daemon was told that nobody needs it
        self.states: dict[int, ProcessState] = {}  # of processes that do not idle, by pid
        self.refusals: list[OSError] = []  # of the system, when the next instances are started
        self._specs = specs
        self.life = Lifecycle(
            self.pool,
            folder or Path("/nowhere"),
            LocalOptions(**options),
            lambda: self.unneeded.append(self.loop.now),
            zygote=self._zygote,
            listen=self._listen,
            clock=lambda: round(self.loop.now * 1e9),
            read=lambda pid, _: self.states.get(pid, IDLE),
        )

    def _listen(self, _: str) -> socket.socket:
        if self.refusals:
            raise self.refusals.pop(0)
        return socket.socket(socket.AF_UNIX)

    def _zygote(self, modules: Sequence[str], listener: Listener) -> FakeZygote:
        self.zygote = FakeZygote(modules, listener)
        return self.zygote

    def run(self, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        """Deploy the functions, play the story, and close."""

        async def play() -> None:
            await self.life.install(self._specs)
            await story(self)
            await self.life.close(1.0)
            for task in list(self.life._tasks):
                task.cancel()

        try:
            self.loop.run_until_complete(play())
            self.loop.run_until_complete(asyncio.sleep(0))
        finally:
            self.loop.close()
        assert self.pool.instances == {}

    def process(self, running: InstanceState) -> FakeInstance:
        """The process behind an instance."""
        return next(one for one in self.zygote.instances if one.number == running.number)

    async def loaded(self, name: str) -> InstanceState:
        """An instance of a function, which has loaded."""
        running = await self.life.obtain(name)
        await self.until(lambda: bool(running.record.mapped))
        return running

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it has not happened in 100 s")

    def counts(self, name: str) -> dict[str, int]:
        return {key: count for key, count in self.pool.functions[name].counts.items() if count}
