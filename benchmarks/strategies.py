"""Memory of `--strategy private` beside `shared`, and what a tenant's first request pays.

Six tenants, of which none has asked yet; then each asks, then all of them at once, with prompts that touch every
expert. Memory is the sum of proportional set sizes of all processes: this one, which is the gateway without its HTTP
server, and the daemon, zygote, instances, template and orchestrators that it starts. It is sampled while all are
answered, and the peaks of the two strategies are compared. `orchestrator_own_mib` is what an orchestrator shares with
no other process then, on average: what the planner takes one more to cost. Afterwards all go idle, and what is left is
measured.

`orchestrator_start_s` is from the order to fork one until it takes requests. `answer_...` are seconds for an answer of
twelve tokens, with functions that are warm but in the last: `warm` when the tenant has an orchestrator, `forked` when
it gets one from the template, `loaded` when the template has to be loaded before, `from_zero` when nothing is left but
gateway and daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import psutil
from rich.console import Console
from tests import processes
from tests.waiting import wait_until

import faasmoe.api.app  # noqa: F401 - a gateway has it in memory
from benchmarks.pool import local_pool
from faasmoe.evaluation.meters.processes import Family, Seen, proportional_set_size
from faasmoe.fleet.fleet import Fleet
from faasmoe.fleet.launcher import TemplateClient
from faasmoe.model.checkpoint.source import resolve
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.protocol.config import EngineOptions, FleetOptions, ServingConfig, Strategy
from faasmoe.protocol.messages import Start
from faasmoe.protocol.request import GenerationRequest, SamplingParams
from faasmoe.util import logs

LIMITS = {"private_vs_shared_memory": 1.25}
TENANTS = [f"tenant-{i}" for i in range(6)]
PROMPT, ANSWER = 120, 12  # tokens; so many touch every expert of 60
SHORT = 4  # tokens of a prompt whose answer is waited for
VOCABULARY = 32000
KEEP_ALIVE = 5.0  # seconds, of orchestrators, and then of the template
POOL = {"keep_alive": 30, "zygote_keep_alive": 3}
MIB = 1 << 20


class Memory:
    """Samples of all processes' proportional set sizes, in MiB by role, and the largest total.

    `own` is the most that orchestrators have had for themselves, each on average.
    """

    def __init__(self) -> None:
        self._family = Family(os.getpid(), "gateway")
        self.peak: dict[str, float] = {}
        self.own = 0.0

    def sample(self) -> dict[str, float]:
        roles = self._family.look()
        now = {role: sum(proportional_set_size(one.pid) for one in its) / MIB for role, its in roles.items()}
        now["total"] = sum(now.values())
        if orchestrators := roles.get("orchestrator"):
            self.own = max(self.own, statistics.fmean(map(_own, orchestrators)))
        if now["total"] > self.peak.get("total", 0.0):
            self.peak = now
        return now

    @contextlib.asynccontextmanager
    async def sampled(self) -> AsyncIterator[None]:
        """Takes samples while it is entered."""

        async def run() -> None:
            while True:
                await asyncio.to_thread(self.sample)
                await asyncio.sleep(0.5)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


def _own(process: Seen) -> float:
    try:
        return float(psutil.Process(process.pid).memory_full_info().uss / MIB)
    except psutil.NoSuchProcess:
        return 0.0


class Tenants:
    """All requests of a run."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._random = random.Random(0)
        self._names = itertools.count()

    async def ask(self, tenant: str, length: int = SHORT) -> float:
        """Seconds for an answer to so many tokens."""
        prompt = tuple(self._random.randrange(VOCABULARY) for _ in range(length))
        params = SamplingParams(max_tokens=ANSWER, ignore_eos=True)
        request = GenerationRequest(f"r{next(self._names)}", prompt, params, tenant=tenant)
        asked = time.perf_counter()
        (stream,) = await self._fleet.submit([request])
        async for _ in stream:
            pass
        return time.perf_counter() - asked


async def until(condition: Callable[[], bool]) -> None:
    if not await asyncio.to_thread(wait_until, condition, 120):
        raise RuntimeError("not all that idles ended within two minutes")


async def run(strategy: Strategy, model: Path, pool: LocalPlatform, folder: Path, rounds: int) -> dict[str, float]:
    options = FleetOptions(strategy, KEEP_ALIVE, len(TENANTS))
    engine = EngineOptions(kv_cache_bytes=1 << 30)
    config = ServingConfig("m", str(model), max_model_len=2048, engine=engine)
    launcher = TemplateClient(Start(config, "local", pool.address, str(folder), options.orchestrators))
    memory, figures = Memory(), {}
    async with Fleet(launcher, options) as fleet:
        await fleet.ready()
        tenants = Tenants(fleet)
        figures["no_tenant_mib"] = memory.sample()["total"]
        await tenants.ask(TENANTS[0], PROMPT)  # starts the functions
        firsts = [await tenants.ask(tenant) for tenant in TENANTS[1:]]
        seconds = [await tenants.ask(tenant) for tenant in TENANTS[1:]]
        starts = fleet.starts.seconds
        figures["orchestrator_start_s"] = starts.total / sum(starts.counts)
        figures["answer_forked_s"] = statistics.median(firsts)
        figures["answer_warm_s"] = statistics.median(seconds)
        async with memory.sampled():
            for _ in range(rounds):
                await asyncio.gather(*(tenants.ask(tenant, PROMPT) for tenant in TENANTS))
        memory.sample()
        figures |= {f"{role}_mib": nbytes for role, nbytes in memory.peak.items()}
        figures["orchestrator_own_mib"] = memory.own
        touched = [status for status in pool.status().functions if status.instances]
        figures["functions_without_instance"] = len(pool.status().functions) - len(touched)
        await until(lambda: not launcher.running)
        figures["answer_loaded_s"] = await tenants.ask(TENANTS[0])
        await until(lambda: not launcher.running and not processes.of_pool(pool))
        figures["idle_mib"] = memory.sample()["total"]
        figures["answer_from_zero_s"] = await tenants.ask(TENANTS[0])
    return figures


def measure(model: Path, strategies: Sequence[Strategy], rounds: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    console = Console(stderr=True)
    for strategy in strategies:
        console.print(f"{strategy}: {len(TENANTS)} tenants")
        with tempfile.TemporaryDirectory() as folder, local_pool(**POOL) as pool:
            found = asyncio.run(run(strategy, model, pool, Path(folder), rounds))
            console.print({name: round(value, 2) for name, value in found.items()})
        figures |= {f"{strategy}_{name}": value for name, value in found.items()}
    if len(strategies) > 1:
        shared, private = figures["shared_total_mib"], figures["private_total_mib"]
        figures["private_vs_shared_memory"] = private / shared
        figures["each_further_orchestrator_mib"] = (private - shared) / (len(TENANTS) - 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint; default: two layers of Qwen1.5-MoE are made")
    parser.add_argument("--rounds", type=int, default=2, help="requests of each tenant beside the others'")
    parser.add_argument("--strategy", choices=["shared", "private"], help="only this one, without a comparison")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    logs.configure("gateway", "text", "warning")
    with tempfile.TemporaryDirectory() as made:
        model = args.model
        if model is None:
            model = Path(made) / "model"
            command = ["-m", "faasmoe.cli.main", "models", "make", "qwen1.5-moe-a2.7b", "--layers", "2"]
            command += ["--vocab", str(VOCABULARY), "--out", str(model)]
            subprocess.run([sys.executable, *command], check=True)
        chosen: list[Strategy] = [args.strategy] if args.strategy else ["shared", "private"]
        figures = measure(resolve(str(model)).folder, chosen, args.rounds)
    from benchmarks.figures import report  # noqa: PLC0415 - brings torch, which a gateway has not

    report(figures, LIMITS, args.json)


if __name__ == "__main__":
    main()
