"""An orchestrator for each tenant, with real processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from faasmoe.errors import EngineStopped
from faasmoe.experts import PRELOAD
from faasmoe.fleet import launcher, template_process
from faasmoe.fleet.fleet import Fleet
from faasmoe.fleet.launcher import TemplateClient
from faasmoe.fleet.stream import PieceStream
from faasmoe.fleet.template_process import TemplateProcess
from faasmoe.model.checkpoint.source import resolve
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import EngineOptions, FleetOptions, ServingConfig
from faasmoe.protocol.messages import Start
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams
from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.keys import create_key
from faasmoe.tenancy.tenants import Tenant, add_tenant
from faasmoe.util.folders.user_cache import CACHE
from faasmoe.util.liveness import SilenceLimits
from tests import processes
from tests.integration.servers import Server, serve
from tests.waiting import alive, wait_until

PROMPT = tuple(range(40, 60))
LONG = 1500  # tokens; a minute
names = itertools.count()


@asynccontextmanager
async def fleet_on(folder: Path, pool: LocalPlatform, options: FleetOptions) -> AsyncIterator[Fleet]:
    config = ServingConfig("demo", str(resolve(None).folder), engine=EngineOptions(kv_cache_bytes=64 << 20))
    start = Start(config, "local", pool.address, str(folder), options.orchestrators)
    async with Fleet(TemplateClient(start), options) as fleet:
        await fleet.ready()
        yield fleet


async def submit(fleet: Fleet, tenant: str, tokens: int) -> PieceStream:
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    (stream,) = await fleet.submit([GenerationRequest(f"r{next(names)}", PROMPT, params, tenant=tenant)])
    return stream


async def text(stream: PieceStream) -> str:
    return "".join([piece.text async for piece in stream])


def template() -> psutil.Process | None:
    """What forks orchestrators; a child of this process."""
    return processes.template(os.getpid())


def orchestrators() -> list[int]:
    return processes.orchestrators(os.getpid())


async def until(condition: Callable[[], bool]) -> None:
    assert await asyncio.to_thread(wait_until, condition, 60)


def test_the_death_of_one_orchestrator_is_its_tenants_matter_alone(tmp_path: Path) -> None:
    async def test(pool: LocalPlatform) -> None:
        async with fleet_on(tmp_path, pool, FleetOptions("private")) as fleet:
            wanted = await text(await submit(fleet, "a", 40))
            (its,) = orchestrators()
            assert await text(await submit(fleet, "b", 40)) == wanted
            assert len(orchestrators()) == 2
            dying, living = await submit(fleet, "a", LONG), await submit(fleet, "b", 100)
            pieces = [await anext(dying), await anext(living)]
            assert all(isinstance(piece, Piece) for piece in pieces)
            before = await fleet.stats()
            os.kill(its, signal.SIGKILL)
            with pytest.raises(EngineStopped, match="has ended"):
                await text(dying)
            assert await text(await submit(fleet, "a", 40)) == wanted
            assert (pieces[1].text + await text(living)).startswith(wanted)
            assert fleet.starts.again == 1
            stats = await fleet.stats()
            assert stats.step_tokens.total >= before.step_tokens.total + 39  # those of the dead are counted
            # two of 8 shares
            assert stats.engine["kv_cache_tokens"] == pytest.approx(2 * (8 << 20) // 5376, abs=2)
            forking = template()
            everybody = forking.children() if forking else []
            assert len(everybody) == 2
        assert template() is None
        assert not any(child.is_running() for child in everybody)

    with start("local", PRELOAD) as pool:
        asyncio.run(test(pool))


def test_keys_lead_to_orchestrators_of_their_own_in_eight_bits_and_nothing_outlives_the_gateway(
    tmp_path: Path,
) -> None:
    database = f"sqlite:///{tmp_path}/tenants.db"
    keys = []
    with open_database(database) as opened:
        for tenant in ("acme", "globex"):
            add_tenant(opened, Tenant(tenant))
            keys.append(create_key(opened, tenant)[0])
    options = ("--strategy", "private", "--max-orchestrators", "4", "--quantize", "int8")
    options += ("--kv-cache-memory", "8MiB")
    with serve(*options, "--database", database) as server:
        texts = set()
        for expected, key in enumerate([*keys, keys[0]], start=1):
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
                answer = client.completions.create(
                    model="faasmoe-demo", prompt="It was", max_tokens=6, temperature=0
                )
            texts.add(answer.choices[0].text)
            assert len(server.orchestrators()) == min(expected, 2)
        assert len(texts) == 1
        fills_its_context(server, keys[0], (2 << 20) // 5376)
        for pid in [*server.orchestrators(), *server.instances()]:  # all of them use the same copy
            assert f"{os.environ[CACHE]}/int8/faasmoe-demo-" in Path(f"/proc/{pid}/maps").read_text()
        body = {"model": "faasmoe-demo", "prompt": "It was"}
        assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=100).status_code == 401
        everybody = [child.pid for child in psutil.Process(server.process.pid).children(recursive=True)]
        os.kill(server.process.pid, signal.SIGKILL)
        assert wait_until(lambda: not any(map(alive, everybody)))


def fills_its_context(server: Server, key: str, context: int) -> None:
    """A chat that states no length gets what the KV cache holds, not all of the model's context."""
    assert f"a context of {context} tokens" in server.greeting
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        assert client.models.list().data[0].model_dump()["max_model_len"] == context
        answer = client.chat.completions.create(
            model="faasmoe-demo",
            messages=[{"role": "user", "content": " a" * (context - 20)}],
            extra_body={"ignore_eos": True},
        )
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.total_tokens == context


class Held(TemplateProcess):
    """Stopped from its first moment on."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        os.kill(self.pid, signal.SIGSTOP)


def test_an_idle_fleet_leaves_nothing_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pool: LocalPlatform) -> None:
        async with fleet_on(tmp_path, pool, FleetOptions("private", keep_alive=1, most=2)) as fleet:
            wanted = await text(await submit(fleet, "a", 8))
            assert await text(await submit(fleet, "b", 8)) == wanted
            assert await text(await submit(fleet, "c", 8)) == wanted  # a's or b's made room
            assert len(orchestrators()) <= 2
            await until(lambda: not orchestrators())
            invocations = (await fleet.stats()).invocations
            assert invocations > 0
            await until(lambda: template() is None)
            await until(lambda: not any(function.instances for function in pool.status().functions))
            await until(lambda: not processes.of_pool(pool))  # neither instances nor what starts them
            assert (fleet.state, fleet.running) == ("ok", 0)
            monkeypatch.setattr(launcher, "TemplateProcess", Held)
            monkeypatch.setattr(template_process, "_LOADING", SilenceLimits(stopped=60, asleep=60, working=60))
            answer = asyncio.create_task(submit(fleet, "a", 8))
            # daemon and zygote are there before the model is loaded
            await until(lambda: len(processes.of_pool(pool)) > 1)
            assert fleet.awaited("a") == "the model is being loaded"
            forking = template()
            assert forking is not None
            forking.resume()
            assert await text(await answer) == wanted
            assert (await fleet.stats()).invocations > invocations
            assert fleet.starts.again == 0

    with start("local", PRELOAD, keep_alive=0.5, zygote_keep_alive=0.5) as pool:
        asyncio.run(test(pool))


def test_tenants_wait_their_turn_where_all_orchestrators_are_busy(tmp_path: Path) -> None:
    async def test(pool: LocalPlatform) -> None:
        async with fleet_on(tmp_path, pool, FleetOptions("private", most=1)) as fleet:
            first = await submit(fleet, "a", 60)
            second = asyncio.create_task(submit(fleet, "b", 8))
            await anext(first)
            assert not second.done()
            assert len(orchestrators()) == 1
            await text(first)
            assert await text(await second)
            assert len(orchestrators()) == 1

    with start("local", PRELOAD) as pool:
        asyncio.run(test(pool))
