"""Comments in streams, as real clients read them over a real connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import openai
import pytest

from faasmoe.api import generation
from faasmoe.errors import EngineStopped
from tests.integration.test_http_server import served
from tests.streams import data_of
from tests.unit.api.apps import ANSWER, BODY, Slow, app_of


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "INTERVAL", 0.02)


def ask(orchestrator: Slow, client: Callable[[str], Coroutine[None, None, Any]]) -> Any:
    async def run() -> Any:
        async with served(app_of(orchestrator)) as (_, port):
            return await client(f"http://127.0.0.1:{port}/v1")

    return asyncio.run(run())


async def openai_text(url: str) -> str:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        stream = await client.completions.create(**BODY, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])


def test_the_openai_client_reads_past_them() -> None:
    assert ask(Slow(3, ANSWER), openai_text) == "夜 🎈"


def test_it_raises_an_error_that_follows_one() -> None:
    with pytest.raises(openai.APIError, match="it was lost"):
        ask(Slow(1, refusal=EngineStopped("it was lost")), openai_text)


def test_httpx_reads_them_one_after_the_other_while_it_waits() -> None:
    async def lines(url: str) -> list[str]:
        body = {**BODY, "stream": True}
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("POST", f"{url}/completions", json=body) as answer,
        ):
            return [line async for line in answer.aiter_lines() if line]

    got = ask(Slow(5, ANSWER), lines)
    assert got[:5] == [": waiting, the model is being loaded"] * 5
    assert [json.loads(event)["choices"][0]["text"] for event in list(data_of(got))[:-1]] == ["夜", " 🎈"]
    assert got[-1] == "data: [DONE]"
