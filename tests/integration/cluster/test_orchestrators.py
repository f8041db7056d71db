"""Orchestrators on nodes that do not see the server's files, which lie in its working directory."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from faasmoe.errors import EngineStopped
from faasmoe.experts import PRELOAD
from faasmoe.fleet.fleet import Fleet
from faasmoe.fleet.launcher import TemplateClient
from faasmoe.fleet.placed_launcher import PlacedLauncher
from faasmoe.fleet.stream import PieceStream
from faasmoe.platforms import registry
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.protocol.config import EngineOptions, FleetOptions, ServingConfig
from faasmoe.protocol.messages import Start
from faasmoe.protocol.request import GenerationRequest, SamplingParams
from tests import nodes, processes
from tests.tiny import save_tiny
from tests.waiting import wait_until

PROMPT = tuple(range(5, 18))
TOKENS = 24
LONG = 2000  # tokens, some seconds
names = itertools.count()


class Served:
    """Nodes a and b, of which each may run an orchestrator, a pool on them, and a model in the working directory."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        arguments = ("--orchestrators", "1")
        self.agents = {
            name: stack.enter_context(nodes.agent(folder, name, *arguments, own=folder / name)) for name in "ab"
        }
        (folder / "nodes").write_text("".join(f"{each.address}\n" for each in self.agents.values()))
        options = nodes.options(folder) | {"orchestrators": "a, b"}
        self.platform: ClusterPlatform = stack.enter_context(registry.start("nodes", PRELOAD, **options))  # type: ignore[assignment, arg-type]
        self._folder = folder

    @asynccontextmanager
    async def fleet(self, options: FleetOptions) -> AsyncIterator[Fleet]:
        engine = EngineOptions(kv_cache_bytes=8 << 20)
        config = ServingConfig("tiny", "/proc/self/cwd/model", block_size=2, dtype="float32", engine=engine)
        folder = self._folder / options.strategy
        folder.mkdir()
        start = Start(config, "nodes", self.platform.address, str(folder), options.orchestrators)
        placed = self.platform.orchestrator_nodes
        assert placed
        async with Fleet(PlacedLauncher(TemplateClient(start), placed, start), options) as fleet:
            await fleet.ready()
            yield fleet

    def running(self) -> dict[str, int]:
        """Orchestrators by node."""
        return {link.name: report.orchestrators for link, report in self.platform.orders.reports()}

    def fetched(self) -> list[int]:
        """Bytes of weights, by node."""
        return [report.weights.fetched for _, report in self.platform.orders.reports()]

    def has_room(self) -> bool:
        return self.platform.orchestrator_nodes is not None and self.platform.orchestrator_nodes.has_room


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    save_tiny("qwen2_moe", folder / "model", max_position_embeddings=4096)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.chdir(folder)
        patch.setenv("FAASMOE_CACHE", str(folder / "cache"))
        yield Served(folder, stack)


async def submit(fleet: Fleet, tenant: str, tokens: int = TOKENS, first: int = 0) -> PieceStream:
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    prompt = (first, *PROMPT)
    (stream,) = await fleet.submit([GenerationRequest(f"r{next(names)}", prompt, params, tenant=tenant)])
    return stream


async def text(stream: PieceStream) -> str:
    return "".join([piece.text async for piece in stream])


async def until(condition: Callable[[], bool]) -> None:
    assert await asyncio.to_thread(wait_until, condition, 90)


def here() -> list[int]:
    """Orchestrators on this machine."""
    return processes.orchestrators(os.getpid())


def test_both_give_the_tokens_of_one_on_the_servers_machine(served: Served) -> None:
    async def test() -> None:
        async with served.fleet(FleetOptions(shared=2)) as fleet:
            stream = await submit(fleet, "a")
            assert (len(here()), served.running()) == (1, {"a": 0, "b": 0})  # no node has loaded the model yet
            wanted = await text(stream)
            await until(served.has_room)
            await until(lambda: not here())  # it has left, as a node has room
            streams = []
            while sum(served.running().values()) < 2:  # the second node may load for a moment longer
                streams += [await submit(fleet, "a"), await submit(fleet, "b")]
                for stream in streams:
                    assert await text(stream) == wanted
                streams.clear()
                streams += [await submit(fleet, "a"), await submit(fleet, "b")]
            assert [await text(stream) for stream in streams] == [wanted, wanted]
            assert (here(), served.running()) == ([], {"a": 1, "b": 1})
            stats = await fleet.stats()
            assert stats.engine["kv_cache_tokens"] > 0
        await until(lambda: served.running() == {"a": 0, "b": 0})

    asyncio.run(test())
    model = sum(file.stat().st_size for file in Path("model").iterdir())
    assert all(0 < got < model + (64 << 10) for got in served.fetched())


def test_tenants_have_theirs_on_nodes_and_a_loss_costs_what_ran_there(served: Served) -> None:
    async def test() -> None:
        async with served.fleet(FleetOptions("private", most=2)) as fleet:
            await until(served.has_room)
            wanted = await text(await submit(fleet, "x"))
            await until(lambda: not here())
            assert await text(await submit(fleet, "x")) == wanted
            (first,) = (name for name, count in served.running().items() if count)
            dying = await submit(fleet, "x", LONG)
            await anext(dying)
            living = await submit(fleet, "y", LONG)
            await anext(living)
            assert served.running() == {"a": 1, "b": 1}
            served.agents[first].process.kill()
            with pytest.raises(EngineStopped, match="has ended"):
                await text(dying)
            assert (
                await text(await submit(fleet, "x")) == wanted
            )  # on the server's machine: the other node is full
            assert len(here()) == 1
            assert len(await text(living)) > len(wanted)

            other = served.agents["ab".replace(first, "")]
            longer = await submit(fleet, "y", LONG // 4)
            await anext(longer)
            other.process.terminate()
            assert len(await text(longer)) > len(wanted)
            assert await asyncio.to_thread(other.process.wait, 30) == 0

    asyncio.run(test())
