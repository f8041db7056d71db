"""A replica's requests, over links that are played."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from faasmoe.errors import EngineBusy, EngineStopped, RequestError
from faasmoe.fleet.replica import MOST_WAITING, PATIENCE, OrchestratorReplica
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


def replica(patience: float = PATIENCE) -> OrchestratorReplica:
    async def launch() -> Any:
        raise AssertionError("it was not started")

    return OrchestratorReplica(launch, asyncio.Semaphore(1), patience=patience)


REQUESTS = [GenerationRequest("a", (1,)), GenerationRequest("b", (1,))]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def attach(it: OrchestratorReplica, link: Link) -> None:
    it.attach(link)  # type: ignore[arg-type]


def test_requests_go_to_the_orchestrator_that_is_there() -> None:
    async def test() -> None:
        it, link = replica(), Link()
        assert (it.state, it.busy) == ("starting", False)
        attach(it, link)
        assert it.state == "ok"
        assert await it.submit(REQUESTS) == ["a", "b"]
        assert not it.busy
        link.busy = True
        assert it.busy

    run(test())


def test_requests_wait_for_the_next_orchestrator() -> None:
    async def test() -> None:
        it, first, second = replica(), Link(), Link()
        attach(it, first)
        it.detach("killed")
        assert (it.state, it.lost, first.reason) == ("starting", True, "killed")
        waiting = asyncio.create_task(it.submit(REQUESTS))
        await asyncio.sleep(0)
        assert it.busy
        attach(it, second)
        assert await waiting == ["a", "b"]
        assert not it.lost

    run(test())


def test_they_do_not_wait_for_ever() -> None:
    async def test() -> None:
        it = replica(patience=0.01)
        it.waits_for = "it is not here"
        with pytest.raises(EngineStopped, match="it is not here; try again"):
            await it.submit(REQUESTS)
        assert not it.busy

    run(test())


def test_they_do_not_wait_for_what_cannot_start() -> None:
    async def test() -> None:
        it, link = replica(), Link()
        waiting = asyncio.create_task(it.submit(REQUESTS))
        await asyncio.sleep(0)
        it.despair("the checkpoint has changed; restart the server")
        with pytest.raises(EngineStopped, match="the checkpoint has changed"):
            await waiting
        with pytest.raises(EngineStopped, match="the checkpoint has changed"):
            await it.submit(REQUESTS)
        assert it.state == "starting"
        attach(it, link)  # somebody has put it back
        await it.submit(REQUESTS)
        assert link.taken == ["a", "b"]

    run(test())


def test_nor_do_too_many_of_them() -> None:
    async def test() -> None:
        it = replica()
        waiting = [asyncio.create_task(it.submit(REQUESTS)) for _ in range(MOST_WAITING // 2)]
        await asyncio.sleep(0)
        with pytest.raises(EngineBusy, match=f"{MOST_WAITING} requests wait"):
            await it.submit(REQUESTS)
        attach(it, Link())
        await asyncio.gather(*waiting)
        await it.submit(REQUESTS)

    run(test())


def test_counts_go_on_with_the_next_orchestrator() -> None:
    async def test() -> None:
        it = replica()
        assert it.stats == EngineStats()
        attach(it, Link())
        await it.refresh()
        assert (it.stats.running, it.stats.invocations) == (3, 5)
        it.detach("killed")
        await it.refresh()
        assert (it.stats.running, it.stats.invocations) == (0, 5)
        attach(it, Link())
        assert (it.stats.running, it.stats.invocations) == (1, 10)

    run(test())


def test_requests_that_a_dying_orchestrator_had_not_taken_are_sent_again_once() -> None:
    async def test() -> None:
        it, third = replica(), Link()
        attach(it, Link(dies=True))
        waiting = asyncio.create_task(it.submit(REQUESTS))
        it.detach("killed")
        attach(it, third)
        assert await waiting == third.taken == ["a", "b"]
        it.detach("killed")
        attach(it, Link(dies=True))
        with pytest.raises(EngineStopped, match="killed"):
            await it.submit(REQUESTS)

    run(test())


def test_a_server_that_ends_refuses_and_lets_run_what_runs() -> None:
    async def test() -> None:
        it, link = replica(), Link()
        attach(it, link)
        it.refuse("shutting down")
        assert (it.state, link.lost) == ("stopped", False)
        with pytest.raises(EngineStopped, match="shutting down"):
            await it.submit(REQUESTS)
        it.detach("time is up")
        assert link.reason == "time is up"
        assert it.state == "stopped"

    run(test())


def test_those_who_wait_when_a_server_ends_are_refused() -> None:
    async def test() -> None:
        it = replica()
        waiting = asyncio.create_task(it.submit(REQUESTS))
        await asyncio.sleep(0)
        it.refuse("shutting down")
        with pytest.raises(EngineStopped, match="shutting down"):
            await waiting

    run(test())


def test_what_cannot_be_sent_is_the_clients_mistake() -> None:
    async def test() -> None:
        it = replica()
        attach(it, Link())
        with pytest.raises(RequestError, match="cannot be sent"):
            await it.submit([GenerationRequest("a", (1,), SamplingParams(max_tokens=10**30))])

    run(test())
