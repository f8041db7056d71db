"""The life of instances: started, drained or killed, and counted when they have ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.local.daemon import page_cache
from faasmoe.platforms.local.daemon.activations import Activations
from faasmoe.platforms.local.daemon.instance_channel import InstanceChannel, listen_at
from faasmoe.platforms.local.daemon.keeper import Keeper
from faasmoe.platforms.local.daemon.pool import FunctionState, InstanceState, Pool
from faasmoe.platforms.local.daemon.watch import Watch
from faasmoe.platforms.local.daemon.zygote import ChildEvent, StartZygote
from faasmoe.platforms.local.daemon.zygote_client import PREFORKED, ZygoteClient, ZygoteFailed
from faasmoe.platforms.local.limits import INSTANCE_BYTES
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.protocol.endings import NO_ROOM, cause_of
from faasmoe.platforms.local.protocol.messages import PlatformFailed, RequestRefused
from faasmoe.platforms.local.protocol.stats_page import StatsTable
from faasmoe.util.forkserver.messages import Ended, Forked, ForkFailed
from faasmoe.util.liveness import ReadState, read_state

log = logging.getLogger(__name__)


class Lifecycle:
    """Keeps the `Pool` in step with the processes of its instances."""

    def __init__(
        self,
        pool: Pool,
        folder: Path,
        options: LocalOptions,
        unneeded: Callable[[], None],
        *,
        zygote: StartZygote = ZygoteClient,
        listen: Callable[[str], socket.socket] = listen_at,
        clock: Callable[[], int] = time.monotonic_ns,
        read: ReadState = read_state,
    ) -> None:
        """`unneeded` is called when no instance has run for `options.zygote_keep_alive`. `clock` gives nanoseconds."""
        self._pool = pool
        self._folder = folder
        self._options = options
        self._unneeded = unneeded
        self._table = StatsTable()
        self._channels: dict[str, InstanceChannel] = {}  # by path
        self._numbers: dict[int, InstanceState] = {}  # by the zygote's number
        self._started = 0  # names sockets, so that no path is used twice, nor was by a daemon before this one
        self._mark = secrets.token_hex(4)
        self._change = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.closing = False
        self._listen = listen
        self._clock = clock
        self._zygote = zygote(options.preload, self._zygote_event)
        self._activations = Activations(pool, self, clock)
        self._scarcity = self._activations.scarcity
        self._keeper = Keeper(pool, self, self._seconds)
        self.watch = Watch(pool, self._zygote, self._kill_hanging, read, self._seconds)

    def _seconds(self) -> float:
        return self._clock() / 1e9

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task of the daemon."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def trouble(self) -> str:
        """Why no instance can be started now; "" if one can, or if none was tried for some seconds."""
        return self._zygote.trouble or (self._scarcity.why if self._scarcity.lately else "")

    @property
    def scarce_lately(self) -> bool:
        """Whether an instance may have ended for lack of a process or descriptor."""
        return self._scarcity.lately

    async def prepare(self) -> None:
        """Have the zygote ready before the next call, and its memory counted."""
        with suppress(RequestRefused):  # `trouble` says why
            await self.zygote_ready()
        self._may_rest()

    async def install(self, specs: Iterable[FunctionSpec]) -> None:
        """Deploy functions in place of those of the same names, whose instances take no call after this returns."""
        functions = self._pool.functions
        new = [s for s in specs if s.name not in functions or functions[s.name].spec != s]
        replaced = [functions[s.name] for s in new if s.name in functions]
        for spec in new:
            functions[spec.name] = FunctionState(spec)
            self.spawn(self._keeper.keep(spec.name))
        await self.stop(replaced)

    async def stop(self, functions: Iterable[FunctionState]) -> None:
        """Drain all instances of some functions. They take no call after this returns."""
        ending = [running for function in functions for running in function.live]
        for running in ending:
            self.drain(running)
        while any(r.path in self._pool.instances and not r.record.draining for r in ending):
            await self.changed()

    async def close(self, seconds: float) -> None:
        """Drain all instances, then end the zygote, and with it all instances that are left after `seconds`."""
        self.closing = True
        for running in list(self._pool.instances.values()):
            self.drain(running)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._pool.instances:
                    await self.changed()
        self._zygote.close()

    async def prewarm(self, name: str) -> None:
        """Have an instance of a function. Returns when it is forked."""
        running = await self.obtain(name)
        while running.pid is None and running.path in self._pool.instances:
            await self.changed()

    async def obtain(self, name: str, kept: bool = False) -> InstanceState:
        """See `Activations.obtain`."""
        return await self._activations.obtain(name, kept)

    async def changed(self) -> None:
        """Wait until an instance has been forked, loaded or stopped, or was asked to report and has answered a call."""
        self._change.clear()
        await self._change.wait()

    def start(self, function: FunctionState, kept: bool) -> InstanceState:
        """Start an instance. Raises `OSError`."""
        self._started += 1
        path = str(self._folder / f"{self._mark}-{self._started}.sock")  # short: the kernel takes 107 bytes
        channel = InstanceChannel(self._table, path, self._listen)
        try:
            record = channel.record
            record.activated = record.last_used = self._clock()
            running = InstanceState(function, path, record, kept)
            channel.listen(partial(self._hear, running))
            running.number = self._zygote.start(running.duty(channel.slot), channel.descriptors)
        except BaseException:
            channel.close()
            raise
        channel.handed_over()
        self._channels[path], self._numbers[running.number] = channel, running
        self._pool.add(running)
        return running

    def _hear(self, running: InstanceState, ending: bool) -> None:
        """The instance has ended a call, or is about to end itself."""
        running.draining = running.draining or ending
        self._change.set()

    def drain(self, running: InstanceState) -> None:
        """Let an instance finish its calls, and end."""
        running.draining = True
        self._channels[running.path].drain(too_slow=partial(self._kill, running))

    def _kill(self, running: InstanceState) -> None:
        self._zygote.kill(running.number)

    def _kill_hanging(self, running: InstanceState, cause: str) -> None:
        log.warning("an instance of %s hangs and is killed: %s", running.function.spec.name, cause)
        running.fault = cause
        self.drain(running)
        self._kill(running)

    def stuck(self, running: InstanceState, seconds: float) -> None:
        """A caller gave up a call after `seconds`: kill the instance if it was busy all that time."""
        if running.record.in_flight and self._clock() - running.record.busy_since >= seconds * 1e9:
            self._kill_hanging(running, f"a call was not answered within {seconds:.0f} s")

    def _zygote_event(self, event: ChildEvent | None) -> None:
        """An event of a child; None: the zygote is gone, and the kernel has killed its children."""
        if event is None:
            for running in list(self._pool.instances.values()):
                self._ended(running, "the zygote ended")
            self._renew_table()
            if not self.closing:
                self.spawn(self.prepare())
        elif concerned := self._numbers.get(event.number):
            match event:
                case Forked():
                    concerned.pid = event.pid
                    self._change.set()
                case ForkFailed():
                    self._scarcity.failed(f"no process can be forked: {event.cause}")
                    self._ended(concerned, "")
                case Ended(status=status):
                    if status == NO_ROOM:
                        self._scarcity.failed(
                            "an instance could not have the threads or descriptors that it needs"
                        )
                    self._ended(concerned, cause_of(status) if status != NO_ROOM else "")

    def _renew_table(self) -> None:
        """Instances that are being killed may still write into the old table."""
        with suppress(OSError):  # then its free pages are used again, and a call or two counts wrong
            table = StatsTable()
            self._table.close()
            self._table = table

    def _ended(self, running: InstanceState, cause: str) -> None:
        self._pool.remove(running, running.fault or cause, self._clock())
        self._channels.pop(running.path).close()
        self._numbers.pop(running.number, None)
        self._change.set()
        spec = running.function.spec
        if self._options.release_page_cache and not running.function.instances:
            self.spawn(asyncio.to_thread(page_cache.release, spec.files))
        if running.kept and not self.closing:
            self.spawn(self._keeper.keep(spec.name))
        self._may_rest()

    @property
    def zygote_up(self) -> bool:
        """Whether instances can be forked."""
        return self._zygote.up

    async def zygote_ready(self) -> None:
        """Have a zygote. Raises `RequestRefused` if it cannot be started."""
        try:
            await self._zygote.ready()
        except ZygoteFailed as error:
            raise RequestRefused(PlatformFailed(str(error))) from error
        if self._pool.budget is not None or not self._pool.own:  # else it is only looked at
            self._pool.own = max(self._pool.own, self._zygote.memory() + PREFORKED * INSTANCE_BYTES)

    def _may_rest(self) -> None:
        """If no instance runs, and none is started for long, zygote and daemon are not needed either."""
        if not self._pool.instances:
            started = self._started
            asyncio.get_running_loop().call_later(self._options.zygote_keep_alive, self._rest, started)

    def _rest(self, started: int) -> None:
        if started == self._started and not self._pool.instances and not self._pool.waiting:
            self._unneeded()
