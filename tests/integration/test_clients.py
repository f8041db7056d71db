"""Two hundred clients that stream at the same time: more than a step takes, so that most of them wait their turn."""

from __future__ import annotations

import asyncio
import json

import httpx

from tests.integration.servers import MODEL, Server, wait_for_metric
from tests.streams import data_of

CLIENTS, TOKENS = 200, 8


async def _stream(client: httpx.AsyncClient, number: int) -> list[str]:
    """The data of all events of one stream."""
    body = {
        "model": MODEL, "prompt": f"{number}. " + "It was a dark night. " * (1 + number % 4), "max_tokens": TOKENS,
        "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        return list(data_of([line async for line in response.aiter_lines()]))


async def _streams(url: str) -> list[list[str]]:
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:
        return await asyncio.gather(*(_stream(client, number) for number in range(CLIENTS)))


def test_all_get_all_of_their_tokens(server: Server) -> None:
    streams = asyncio.run(_streams(server.url))
    assert len(streams) == CLIENTS
    for *events, done in streams:
        assert done == "[DONE]"
        *chunks, usage = map(json.loads, events)
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == TOKENS
        reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
        assert reasons == [None] * (len(reasons) - 1) + ["length"]
        assert {chunk["id"] for chunk in chunks} == {usage["id"]}
    assert len({json.loads(events[0])["id"] for events in streams}) == CLIENTS
    assert wait_for_metric(server, "faasmoe_num_requests_running", 0)
