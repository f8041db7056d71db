from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from faasmoe.api.http.pace import BURST, MOST_WAITING, RATE, RefusalPace


class Client:
    """Sends requests that are answered with a status, at times that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.sleeping = asyncio.Event()  # never set: sleepers stay
        self.stay = False
        self.pace = RefusalPace(self._answer, lambda: self.now, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.stay:
            await self.sleeping.wait()

    async def _answer(self, scope: Any, _: Any, send: Any) -> None:
        if scope["tenant"] is not None:
            scope["state"] = {"caller": SimpleNamespace(name=scope["tenant"])}
        await send({"type": "http.response.start", "status": scope["status"], "headers": []})

    async def ask(self, status: int, tenant: str | None = None, address: str = "1.2.3.4") -> dict[str, Any]:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "status": status, "tenant": tenant, "client": (address, 1)}
        await self.pace(scope, None, send)  # type: ignore[arg-type]
        return sent[0]


def test_refusals_come_at_a_pace_after_a_burst() -> None:
    async def run() -> Client:
        client = Client()
        for _ in range(BURST + 3):
            await client.ask(400, "a")
        return client

    assert [round(seconds, 6) for seconds in asyncio.run(run()).slept] == [1 / RATE, 2 / RATE, 3 / RATE]


def test_answers_and_others_do_not_wait() -> None:
    async def run() -> Client:
        client = Client()
        for _ in range(BURST):
            await client.ask(429, "a")
        for _ in range(3 * BURST):
            await client.ask(200, "a")
            await client.ask(503, "a")
            await client.ask(400, "")  # where no key is needed
        await client.ask(429, "b")
        await client.ask(401)
        await client.ask(401, address="5.6.7.8")
        client.now += BURST / RATE
        for _ in range(BURST):
            await client.ask(429, "a")
        return client

    assert asyncio.run(run()).slept == []


def test_who_sends_more_than_may_wait_loses_its_connections() -> None:
    async def run() -> list[dict[str, Any]]:
        client = Client()
        client.stay = True
        for _ in range(BURST):
            await client.ask(400, "a")
        waiting = [asyncio.create_task(client.ask(400, "a")) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)  # in which all of them begin
        assert len(client.slept) == MOST_WAITING
        refused = [await client.ask(400, "a") for _ in range(5)]
        client.sleeping.set()
        return refused + await asyncio.gather(*waiting)

    answers = asyncio.run(run())
    closed = [(b"connection", b"close") in answer["headers"] for answer in answers]
    assert closed == [True] * 5 + [False] * MOST_WAITING
