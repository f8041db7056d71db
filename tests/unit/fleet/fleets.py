"""A fleet whose orchestrators are played, with a clock that is set, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from faasmoe.fleet.fleet import Fleet
from faasmoe.protocol.config import About, FleetOptions
from faasmoe.protocol.messages import StatsReport
from faasmoe.protocol.request import GenerationRequest
from faasmoe.protocol.stats import EngineStats
from tests.unit.clocks import run as run_in_virtual_time

ABOUT = About("arch", 1, 2, 3, 40)


class Link:
    """Takes requests and is busy until it is told otherwise."""

    def __init__(self) -> None:
        self.busy = self.lost = False
        self.taken: list[str] = []
        self.reason = ""
        self.latest = EngineStats(running=1, invocations=1)
        self.told: list[dict[str, int]] = []
        self.on_report: Callable[[StatsReport], None] | None = None

    async def submit(self, number: int, frame: bytes, ids: Sequence[str]) -> list[str]:
        self.busy = True
        self.taken += ids
        return list(ids)

    @property
    def requests(self) -> int:
        return len(self.taken) if self.busy else 0

    def tell_served(self, tokens: dict[str, int]) -> None:
        self.told.append(tokens)

    async def refresh(self) -> None:
        pass

    def fail(self, reason: str) -> None:
        self.lost, self.reason = True, reason

    def cut(self, reason: str) -> None:
        self.reason = reason


class Child:
    """An orchestrator that ends when it is told to, or dies."""

    def __init__(self) -> None:
        self.link = Link()
        self.dies = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.ended = False
        self.has_to_leave = False

    def leaves(self) -> bool:
        return self.has_to_leave

    async def serve(self) -> str:
        await self.dies.wait()
        return "killed"

    async def end(self) -> str:
        await self.may_end.wait()
        self.ended = True
        return "status 0"


class Launcher:
    """Launches at once, unless it is held back or has an error to raise."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.running = False
        self.tries = 0
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.loaded = asyncio.Event()
        self.loaded.set()

    @property
    def loading(self) -> bool:
        return self.running and not self.loaded.is_set()

    async def ready(self) -> About:
        self.running = True
        self.tries += 1
        await self.loaded.wait()
        if self.error:
            raise self.error
        return ABOUT

    async def launch(self) -> Child:
        await self.ready()
        await self.open.wait()
        self.children.append(Child())
        return self.children[-1]

    def close(self) -> None:
        self.running = False
        for child in self.children:
            child.may_end.set()  # killed with what it was started with

    def alive(self) -> int:
        return sum(not child.ended for child in self.children)


class Played:
    """A fleet that looks at nobody by itself."""

    def __init__(self, options: FleetOptions, patience: float) -> None:
        self.now = 100.0
        self.launcher = Launcher()
        self.fleet = Fleet(self.launcher, options, lambda: self.now, patience)  # type: ignore[arg-type]

    async def submit(self, tenant: str, name: str = "r", prompt: tuple[int, ...] = (1,)) -> list[str]:
        requests = [GenerationRequest(name, prompt, tenant=tenant)]
        return await self.fleet.submit(requests)  # type: ignore[return-value]

    async def look(self, after: float = 0) -> None:
        self.now += after
        self.fleet.look()
        await turn()


async def turn() -> None:
    """Let all tasks go on until they wait."""
    for _ in range(30):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def play(
    test: Callable[[Played], Awaitable[None]],
    strategy: str = "private",
    keep_alive: float = 60,
    most: int = 8,
    patience: float = 30,
    shared: int = 1,
) -> None:
    async def run() -> None:
        played = Played(FleetOptions(strategy, keep_alive, most, shared), patience)  # type: ignore[arg-type]
        async with played.fleet:
            await played.fleet.ready()
            await test(played)
        assert not played.launcher.alive()
        assert not played.launcher.running

    run_in_virtual_time(run())
