"""The daemon's end of a zygote that is no process, on a clock that nobody waits for."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import pytest

from faasmoe.platforms.local.daemon.zygote import ChildEvent
from faasmoe.platforms.local.daemon.zygote_client import PREFORKED, ZygoteClient, ZygoteFailed
from faasmoe.platforms.local.protocol.payloads import (
    Duty,
    Preload,
    PreloadFailed,
    encode,
    read_duty,
    read_preload,
)
from faasmoe.util.forkserver.messages import (
    Alive,
    Ended,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Killed,
    Load,
    Loaded,
    LoadFailed,
    Ping,
    pack,
)
from faasmoe.util.forkserver.server_process import ServerProcess
from tests.unit.platforms.local.daemon.world import VirtualLoop
from tests.unit.util.forkserver.played import PlayedServer, settle

DUTY = Duty(slot=3, handler="module:attribute", artifact=b"/\xff", keep_alive=None, concurrency=2)
Life = Callable[[PlayedServer], object] | OSError


def ready(server: PlayedServer) -> None:
    server.socket.send(pack(Loaded()))


def killed(server: PlayedServer) -> None:
    server.socket.shutdown(socket.SHUT_RDWR)


def unusable(server: PlayedServer) -> None:
    server.socket.send(pack(LoadFailed(encode(PreloadFailed("No module named 'x'")))))


def silent(_: PlayedServer) -> None:
    pass


AGAIN = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class World:
    """Each start of the zygote is the next of `lives`, and the last again and again."""

    def __init__(self, *lives: Life) -> None:
        self._lives = lives
        self.loop = VirtualLoop()
        self.begun: list[float] = []  # when it was started
        self.servers: list[PlayedServer] = []
        self.events: list[ChildEvent | None] = []
        self.client = ZygoteClient(("a", "b"), self.events.append, spawn=self._spawn, clock=self.loop.time)

    def _spawn(self) -> ServerProcess:
        life = self._lives[min(len(self.begun), len(self._lives) - 1)]
        self.begun.append(self.loop.now)
        if isinstance(life, OSError):
            raise life
        self.servers.append(PlayedServer())
        started = self.servers[-1].spawn()
        life(self.servers[-1])
        return started

    @property
    def server(self) -> PlayedServer:
        return self.servers[-1]

    @property
    def pauses(self) -> list[float]:
        return [after - before for before, after in zip(self.begun, self.begun[1:], strict=False)]

    def run(self, story: Callable[[World], Awaitable[None]]) -> None:
        async def play() -> None:
            await story(self)
            self.client.close()

        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(play())
        finally:
            for server in self.servers:
                server.socket.close()
        assert all(server.kills == 1 for server in self.servers)

    async def up(self) -> None:
        """Ready, and what it has loaded is read."""
        await self.client.ready()
        order = self.server.order()
        assert isinstance(order, Load)
        assert read_preload(order.payload) == Preload(("a", "b"), PREFORKED)


def test_it_is_started_until_it_starts_after_growing_pauses() -> None:
    """Also when it cannot be forked, and when it is killed while it starts: callers wait."""

    async def story(world: World) -> None:
        waiting = [asyncio.ensure_future(world.client.ready()) for _ in range(3)]
        await settle()
        assert world.client.trouble == (
            f"the process that forks instances cannot be started: {os.strerror(errno.EAGAIN)}"
        )
        assert world.client.pid is None
        await asyncio.gather(*waiting)
        assert world.client.up
        assert world.client.trouble == ""
        assert world.client.pid == os.getpid()

    world = World(AGAIN, killed, AGAIN, ready)
    world.run(story)
    for pause, most in zip(world.pauses, (0.1, 0.2, 0.4), strict=True):
        assert most / 2 <= pause <= most
    assert world.events == [None]


def test_the_longest_pause_is_five_seconds() -> None:
    async def story(world: World) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.client.ready(), 300)

    world = World(killed)
    world.run(story)
    assert all(2.5 <= pause <= 5.0 for pause in world.pauses[8:])
    assert world.events == []


def test_one_that_nobody_waits_for_any_more_is_not_started_again() -> None:
    async def story(world: World) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.client.ready(), 0.2)
        before = len(world.begun)
        await asyncio.sleep(100)
        assert len(world.begun) <= before + 1

    World(killed).run(story)


def test_what_another_start_would_not_help_is_an_error_until_somebody_tries_again() -> None:
    async def story(world: World) -> None:
        cause = "was lost: what functions need cannot be imported: No module named 'x'"
        with pytest.raises(ZygoteFailed, match=cause):
            await world.client.ready()
        assert len(world.begun) == 1
        await world.client.ready()
        assert world.client.trouble == ""

    World(unusable, ready).run(story)


def test_one_that_does_not_get_ready_is_ended_and_another_started() -> None:
    async def story(world: World) -> None:
        waiting = asyncio.ensure_future(world.client.ready())
        await asyncio.sleep(119)
        assert world.client.trouble == ""
        await asyncio.sleep(2)
        await waiting
        assert world.servers[0].kills == 1

    world = World(silent, ready)
    world.run(story)
    assert world.pauses[0] == pytest.approx(120.0, abs=0.2)


def test_an_instance_from_its_order_to_its_end() -> None:
    async def story(world: World) -> None:
        await world.up()
        number = world.client.start(DUTY, [0, 1, 2])
        order = world.server.order()
        assert isinstance(order, Fork)
        assert (order.number, read_duty(order.payload)) == (number, DUTY)
        assert world.server.descriptors == 3
        await world.server.say(Forked(number, 70))
        world.client.kill(number)
        assert world.server.order() == Kill(number)
        await world.server.say(Killed(number), Ended(number, -9))
        world.client.kill(number)  # it has ended
        failed = world.client.start(DUTY, [0, 1, 2])
        await world.server.say(ForkFailed(failed, "no memory"))
        assert isinstance(world.server.order(), Fork)
        with pytest.raises(BlockingIOError):
            world.server.order()
        assert world.events == [Forked(number, 70), Ended(number, -9), ForkFailed(failed, "no memory")]

    World(ready).run(story)


def test_a_sign_of_life_is_owed_until_it_comes() -> None:
    async def story(world: World) -> None:
        world.client.ping()  # nobody is there
        assert not world.client.owes
        await world.up()
        world.client.ping()
        world.client.ping()
        assert world.client.owes
        assert world.server.order() == Ping()
        with pytest.raises(BlockingIOError):
            world.server.order()  # a second one is not asked for
        await world.server.say(Alive())
        assert not world.client.owes
        assert world.events == []

    World(ready).run(story)


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (1, "it ended with status 1; its messages say why"),
        (-signal.SIGKILL, "killed by SIGKILL: by somebody, or by the kernel for want of memory"),
    ],
)
def test_one_that_ends_by_itself_is_lost_for_what_its_status_says(status: int, cause: str) -> None:
    async def story(world: World) -> None:
        await world.up()
        world.client.ping()
        world.server.returncode = status
        await world.server.leave()
        assert world.client.trouble == f"the process that forks instances was lost: {cause}"
        assert (world.client.up, world.client.owes, world.client.pid) == (False, False, None)
        assert world.events == [None]
        world.client.kill(0)
        await world.client.ready()
        assert world.client.trouble == ""

    World(ready).run(story)


def test_one_that_is_ended_is_lost_for_what_its_watcher_says() -> None:
    async def story(world: World) -> None:
        await world.up()
        world.client.end("it was stopped")
        assert world.client.trouble == "the process that forks instances was lost: it was stopped"
        assert world.events == [None]
        world.client.end("it was stopped")  # there is none
        assert world.events == [None]

    World(ready).run(story)


def test_after_the_end_nobody_waits_for_another(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        waiting = asyncio.ensure_future(world.client.ready())
        await settle()
        world.client.close()
        with pytest.raises(ZygoteFailed, match="the platform is ending"):
            await waiting
        with pytest.raises(ZygoteFailed, match="the platform is ending"):
            await world.client.ready()
        assert len(world.begun) == 1

    World(silent).run(story)
    assert not caplog.records
