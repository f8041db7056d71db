"""The client with links that are played."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from faasmoe.errors import EngineBusy, EngineStopped, RequestError
from faasmoe.fleet.client import MOST_WAITING, OrchestratorClient
from faasmoe.protocol.messages import HEADER, Submit, read_order
from faasmoe.protocol.request import GenerationRequest, SamplingParams
from faasmoe.protocol.stats import EngineStats


class Link:
    """Takes requests, or is lost with the first one."""

    def __init__(self, dies: bool = False) -> None:
        self._dies = dies
        self.lost = False
        self.taken: list[str] = []
        self.reason = ""
        self.busy = False
        self.latest = EngineStats(running=1, invocations=5)

    async def submit(self, number: int, frame: bytes, ids: Sequence[str]) -> list[str]:
        assert isinstance(read_order(frame[HEADER.size :]), Submit)
        if self._dies:
            self.lost = True
            raise EngineStopped("killed")
        self.taken += ids
        return list(ids)

    async def refresh(self) -> None:
        self.latest.running = 3

    def fail(self, reason: str) -> None:
        self.lost, self.reason = True, reason


REQUESTS = [GenerationRequest("a", (1,)), GenerationRequest("b", (1,))]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def attach(client: OrchestratorClient, link: Link) -> None:
    client.attach(link)  # type: ignore[arg-type]


def test_requests_go_to_the_orchestrator_that_is_there() -> None:
    async def test() -> None:
        client, link = OrchestratorClient(), Link()
        assert (client.state, client.busy) == ("starting", False)
        attach(client, link)
        assert client.state == "ok"
        assert await client.submit(REQUESTS) == ["a", "b"]
        assert not client.busy
        link.busy = True
        assert client.busy

    run(test())


def test_requests_wait_for_the_next_orchestrator() -> None:
    async def test() -> None:
        client, first, second = OrchestratorClient(), Link(), Link()
        attach(client, first)
        client.detach("killed")
        assert (client.state, client.lost, first.reason) == ("starting", True, "killed")
        waiting = asyncio.create_task(client.submit(REQUESTS))
        await asyncio.sleep(0)
        assert client.busy
        attach(client, second)
        assert await waiting == ["a", "b"]
        assert not client.lost

    run(test())


def test_they_do_not_wait_for_ever() -> None:
    async def test() -> None:
        client = OrchestratorClient(patience=0.01)
        client.why = "it is not here"
        with pytest.raises(EngineStopped, match="it is not here; try again"):
            await client.submit(REQUESTS)
        assert not client.busy

    run(test())


def test_they_do_not_wait_for_what_cannot_start() -> None:
    async def test() -> None:
        client, link = OrchestratorClient(), Link()
        waiting = asyncio.create_task(client.submit(REQUESTS))
        await asyncio.sleep(0)
        client.despair("the checkpoint has changed; restart the server")
        with pytest.raises(EngineStopped, match="the checkpoint has changed"):
            await waiting
        with pytest.raises(EngineStopped, match="the checkpoint has changed"):
            await client.submit(REQUESTS)
        assert client.state == "starting"
        attach(client, link)  # somebody has put it back
        await client.submit(REQUESTS)
        assert link.taken == ["a", "b"]

    run(test())


def test_nor_do_too_many_of_them() -> None:
    async def test() -> None:
        client = OrchestratorClient()
        waiting = [asyncio.create_task(client.submit(REQUESTS)) for _ in range(MOST_WAITING // 2)]
        await asyncio.sleep(0)
        with pytest.raises(EngineBusy, match=f"{MOST_WAITING} requests wait"):
            await client.submit(REQUESTS)
        attach(client, Link())
        await asyncio.gather(*waiting)
        await client.submit(REQUESTS)

    run(test())


def test_counts_go_on_with_the_next_orchestrator() -> None:
    async def test() -> None:
        client = OrchestratorClient()
        assert client.stats == EngineStats()
        attach(client, Link())
        await client.refresh()
        assert (client.stats.running, client.stats.invocations) == (3, 5)
        client.detach("killed")
        await client.refresh()
        assert (client.stats.running, client.stats.invocations) == (0, 5)
        attach(client, Link())
        assert (client.stats.running, client.stats.invocations) == (1, 10)

    run(test())


def test_requests_that_a_dying_orchestrator_had_not_taken_are_sent_again_once() -> None:
    async def test() -> None:
        client, third = OrchestratorClient(), Link()
        attach(client, Link(dies=True))
        waiting = asyncio.create_task(client.submit(REQUESTS))
        client.detach("killed")
        attach(client, third)
        assert await waiting == third.taken == ["a", "b"]
        client.detach("killed")
        attach(client, Link(dies=True))
        with pytest.raises(EngineStopped, match="killed"):
            await client.submit(REQUESTS)

    run(test())


def test_a_server_that_ends_refuses_and_lets_run_what_runs() -> None:
    async def test() -> None:
        client, link = OrchestratorClient(), Link()
        attach(client, link)
        client.refuse("shutting down")
        assert (client.state, link.lost) == ("stopped", False)
        with pytest.raises(EngineStopped, match="shutting down"):
            await client.submit(REQUESTS)
        client.detach("time is up")
        assert link.reason == "time is up"
        assert client.state == "stopped"

    run(test())


def test_those_who_wait_when_a_server_ends_are_refused() -> None:
    async def test() -> None:
        client = OrchestratorClient()
        waiting = asyncio.create_task(client.submit(REQUESTS))
        await asyncio.sleep(0)
        client.refuse("shutting down")
        with pytest.raises(EngineStopped, match="shutting down"):
            await waiting

    run(test())


def test_what_cannot_be_sent_is_the_clients_mistake() -> None:
    async def test() -> None:
        client = OrchestratorClient()
        attach(client, Link())
        with pytest.raises(RequestError, match="cannot be sent"):
            await client.submit([GenerationRequest("a", (1,), SamplingParams(max_tokens=10**30))])

    run(test())
