"""Limits as clients meet them: before bodies are read, while many ask at once, and when they leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import httpx
import pytest

from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.ledger.ledger import Entry, Record
from faasmoe.tenancy.tenants import Tenant
from tests.tenancies import PlayedTenancy, bearer
from tests.unit.api.apps import BODY, Orchestrator, Stream, app_of, post
from tests.unit.api.test_tenants import LAST, get, turns

CHAT = {"model": "m", "messages": [{"role": "user", "content": "abc"}]}


class Generous(Orchestrator):
    """Answers with as many tokens as it may, one by one."""

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[Stream]:
        self.requests += requests
        streams = []
        for request in requests:
            await asyncio.sleep(0)
            most = request.params.max_tokens
            pieces = [Piece("x", i + 1, "length" if i + 1 == most else None) for i in range(most)]
            streams.append(Stream(pieces, StopAsyncIteration()))
        return streams


class SpendingTenancy(PlayedTenancy):
    """Budgets are of tokens, and what is recorded is spent."""

    def __init__(self, *tenants: Tenant) -> None:
        super().__init__(*tenants)
        self.limits._spent = self  # type: ignore[assignment]

    def priced(self, budget: Budget) -> bool:
        return True

    def left(self, tenant: str, budget: Budget) -> Decimal:
        return budget.amount - used(self.records)

    def most(self, budget: Budget, prompt_tokens: int, completion_tokens: int) -> Decimal:
        return Decimal(prompt_tokens + completion_tokens)


def used(records: Sequence[Entry]) -> int:
    return sum(each.prompt_tokens + each.completion_tokens for each in records if isinstance(each, Record))


@pytest.mark.parametrize("tenant", [Tenant("acme", tpm=300), Tenant("acme", budget=Budget(Decimal(50)))])
@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_forty_chats_at_once_get_no_more_than_there_is(tenant: Tenant, stated: bool, stream: bool) -> None:
    tenancy = SpendingTenancy(tenant)
    body = {**CHAT, "stream": stream, **({"max_tokens": 20} if stated else {})}

    async def run() -> list[int]:
        transport = httpx.ASGITransport(app_of(Generous(), tenancy))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = [
                client.post("/v1/chat/completions", json=body, headers=bearer("acme"), timeout=30)
                for _ in range(40)
            ]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    statuses = asyncio.run(run())
    assert set(statuses) == {200, 429}
    assert len(tenancy.records) == statuses.count(200)
    most = tenant.tpm or 50
    assert most / 2 < used(tenancy.records) <= most


def test_an_answer_of_unstated_length_ends_where_the_limit_does() -> None:
    tenancy, orchestrator = PlayedTenancy(Tenant("acme", tpm=50)), Generous()
    answer = post(orchestrator, CHAT, "chat/completions", tenancy, bearer("acme")).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 50
    assert len(orchestrator.requests) == 1
    free = Generous()
    post(free, CHAT, "chat/completions", PlayedTenancy(Tenant("acme", rpm=9)), bearer("acme"))
    assert free.requests[0].params.max_tokens == 100 - len(free.requests[0].prompt)  # the context's


@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 400), (b'{"model": "m", "nonsense": 1}', 400), (b"x" * (5 << 20), 413)]
)
def test_what_is_refused_counts(content: bytes, status: int) -> None:
    tenancy = PlayedTenancy(Tenant("acme", rpm=2))

    async def run() -> list[int]:
        transport = httpx.ASGITransport(app_of(Orchestrator([LAST]), tenancy))
        headers = {**bearer("acme"), "Content-Type": "application/json"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return [
                (await client.post("/v1/completions", content=content, timeout=30)).status_code for _ in range(3)
            ]

    assert asyncio.run(run()) == [status, status, 429]


def test_what_is_only_looked_at_does_not() -> None:
    tenancy = PlayedTenancy(Tenant("acme", rpm=1))
    for _ in range(3):
        assert get(tenancy, "/v1/models", bearer("acme")).status_code == 200
    assert post(Orchestrator([LAST]), BODY, tenancy=tenancy, headers=bearer("acme")).status_code == 200
    assert post(Orchestrator([LAST]), BODY, tenancy=tenancy, headers=bearer("acme")).status_code == 429
    assert get(tenancy, "/v1/models", bearer("acme")).headers["x-ratelimit-remaining-requests"] == "0"


async def call(app: Any, receive: Any, *headers: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes]]:
    given = [(b"authorization", b"Bearer fm-acme-secret"), (b"content-type", b"application/json"), *headers]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": given, "query_string": b""}
    told = []

    async def send(message: Any) -> None:
        told.append(message)

    await asyncio.wait_for(app(scope, receive, send), 30)
    return told[0]["status"], dict(told[0]["headers"])


@pytest.mark.parametrize(
    "tenant",
    [
        Tenant("acme", rpm=1),
        Tenant("acme", tpm=8),
        Tenant("acme", budget=Budget(Decimal(8))),
        Tenant("acme", concurrency=1),
    ],
)
def test_bodies_are_not_read_where_nothing_is_left(tenant: Tenant) -> None:
    tenancy = SpendingTenancy(tenant)
    body = json.dumps({**BODY, "max_tokens": 7}).encode()

    async def run() -> None:
        app = app_of(Generous(), tenancy)
        read = asyncio.Event()

        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def whole() -> Any:
            return messages.pop() if messages else await asyncio.get_running_loop().create_future()

        async def never() -> Any:
            read.set()
            return await asyncio.get_running_loop().create_future()

        waiting = asyncio.create_task(call(app, never))
        await read.wait()
        if tenant.concurrency is None:
            waiting.cancel()
            if tenant.rpm is None:
                assert (await call(app, whole))[0] == 200
        read.clear()
        status, headers = await call(app, never, (b"content-length", b"4194304"))
        assert status == 429
        assert b"retry-after" in headers
        assert (b"x-ratelimit-limit-requests" in headers) == (tenant.rpm == 1)
        assert not read.is_set()
        waiting.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_body_that_is_refused_costs_tokens(announced: bool) -> None:
    tenancy = PlayedTenancy(Tenant("acme", tpm=10**6))
    parts = [b'{"model": "m", "prompt": "', *[b"x" * 2**16] * 16, b'", "nonsense": 1}']

    async def run() -> None:
        app = app_of(Orchestrator(), tenancy)
        left = list(parts)

        async def receive() -> Any:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        length = [(b"content-length", str(sum(map(len, parts))).encode())] if announced else []
        status, _ = await call(app, receive, *length)
        assert status == 400

    asyncio.run(run())
    (standing,) = tenancy.limits.standing(Tenant("acme", tpm=10**6))
    assert 64_000 < 10**6 - standing.remaining < 70_000


def test_what_who_leaves_may_still_use_is_set_aside_until_it_is_known() -> None:
    tenancy, orchestrator = (
        SpendingTenancy(Tenant("acme", budget=Budget(Decimal(20)), concurrency=1)),
        Orchestrator(),
    )
    tenant = tenancy.directory.now.tenants["acme"]

    async def run() -> None:
        app = app_of(orchestrator, tenancy)
        body = json.dumps({**BODY, "max_tokens": 12}).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            await orchestrator.submitted.wait()
            await turns()
            return {"type": "http.disconnect"}

        asked = asyncio.create_task(call(app, receive))
        await orchestrator.submitted.wait()
        await asked
        tenancy.limits.arrive(tenant).leave()  # there is a place again
        held = tenancy.limits._meter("acme")
        assert held.held_answers == 12
        orchestrator.streams[0].final.set_result(Piece("", 3, "cancelled"))
        await turns()
        assert (held.held_answers, held.held_prompts, held.reserved) == (0, 0, 0)

    asyncio.run(run())
    assert len(tenancy.records) == 1
