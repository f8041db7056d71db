"""Prompts of many tenants on an orchestrator on each of two nodes, over one of the embedded platform on both cores."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import nodes
from tests.waiting import wait_until

from benchmarks.cluster.nodes import cluster, embedded_platform, first_core, last_core
from benchmarks.figures import Figures
from faasmoe.experts import PRELOAD
from faasmoe.fleet.fleet import Fleet
from faasmoe.fleet.launcher import TemplateClient
from faasmoe.fleet.placed_launcher import PlacedLauncher
from faasmoe.platforms.base import Platform
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import EngineOptions, FleetOptions, ServingConfig
from faasmoe.protocol.messages import Start
from faasmoe.protocol.request import GenerationRequest, SamplingParams

TENANTS, PROMPT = 16, 512
_KV_BYTES = 1 << 30  # of each orchestrator
_READY_SECONDS = 120


def measure_orchestrators(model: Path, folder: Path, rounds: int) -> Figures:
    """The rate of two orchestrators on two nodes of one core, over that of one on both cores.

    Answers have one token. Median of the ratios of neighbouring rounds.
    """
    cores = [first_core(), last_core()]
    with cluster(folder, cores, arguments=("--orchestrators", "1")) as its, embedded_platform(cores) as local:
        options = nodes.options(folder) | {"orchestrators": "all"}
        with its.client.inside(), start("nodes", PRELOAD, **options) as remote:
            assert isinstance(remote, ClusterPlatform)
            return asyncio.run(_compare(model, folder, (local, remote), rounds))


async def _compare(model: Path, folder: Path, pools: tuple[Platform, ClusterPlatform], rounds: int) -> Figures:
    local, remote = pools
    async with _fleet(model, folder, "local", local, 1) as one, _fleet(model, folder, "nodes", remote, 2) as two:
        await _on_both_nodes(two, remote)
        await _round(one, "warm-up", 2)
        ratios = [await _round(one, str(i)) / await _round(two, str(i)) for i in range(rounds)]
    return {"two_orchestrators_vs_two_cores": statistics.median(ratios)}


@asynccontextmanager
async def _fleet(
    model: Path, folder: Path, platform: str, pool: Platform, orchestrators: int
) -> AsyncIterator[Fleet]:
    """Orchestrators that serve all tenants."""
    engine = EngineOptions(kv_cache_bytes=_KV_BYTES * orchestrators, speculation="off")
    config = ServingConfig(model.name, str(model), engine=engine)
    own = folder / f"{platform}-{orchestrators}"
    own.mkdir()
    order = Start(config, platform, pool.address, str(own), orchestrators)
    template = TemplateClient(order)
    placed = pool.orchestrator_nodes if isinstance(pool, ClusterPlatform) else None
    launcher = PlacedLauncher(template, placed, order) if placed else template
    async with Fleet(launcher, FleetOptions(shared=orchestrators)) as fleet:
        await fleet.ready()
        yield fleet


async def _on_both_nodes(fleet: Fleet, pool: ClusterPlatform) -> None:
    """Ask until each node runs an orchestrator. Raises `TimeoutError`."""
    placed, deadline = pool.orchestrator_nodes, time.monotonic() + _READY_SECONDS
    assert placed
    await asyncio.to_thread(wait_until, lambda: placed.has_room, _READY_SECONDS)
    while [report.orchestrators for _, report in pool.orders.reports()] != [1, 1]:
        if time.monotonic() > deadline:
            raise TimeoutError("no orchestrator has started on a node")
        await _round(fleet, f"warm-up {time.monotonic()}", 2)


async def _round(fleet: Fleet, seed: str, tenants: int = TENANTS) -> float:
    """Seconds for a prompt of each tenant, all at once. Prompts of a seed are always the same."""
    chance, vocabulary = random.Random(seed), fleet.about.vocabulary
    prompts = [[chance.randrange(vocabulary) for _ in range(PROMPT)] for _ in range(tenants)]
    began = time.monotonic()
    await asyncio.gather(*(_ask(fleet, tenant, tuple(prompt)) for tenant, prompt in enumerate(prompts)))
    return time.monotonic() - began


async def _ask(fleet: Fleet, tenant: int, prompt: tuple[int, ...]) -> None:
    params = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    request = GenerationRequest(f"{time.monotonic_ns()}", prompt, params, tenant=f"tenant-{tenant}")
    (stream,) = await fleet.submit([request])
    async for _ in stream:
        pass
