"""Many requests at once, as their clients see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from faasmoe.model.checkpoint.source import resolve
from tests.integration.servers import MODEL, PROMPT, Server, metric, serve, wait_for_metric

LONG = "The king went over the sea, and the night was dark. " * 120


def body(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 8, "ignore_eos": True, **more}


def run(server: Server, main: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def connected() -> None:
        async with httpx.AsyncClient(base_url=f"{server.url}/v1", timeout=100) as client:
            await main(client)

    asyncio.run(connected())


async def texts(client: httpx.AsyncClient, **more: Any) -> AsyncIterator[str]:
    """Texts of a stream's events; bytes must be whole characters wherever the stream is cut."""
    async with client.stream("POST", "/completions", json=body(stream=True, **more)) as answer:
        assert answer.status_code == 200
        async for chunk in answer.aiter_raw():
            for line in chunk.decode().splitlines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))["choices"][0]["text"]


def test_a_long_prompt_does_not_stall_what_is_decoded() -> None:
    async def main(client: httpx.AsyncClient) -> None:
        beside, prompt = 0, None
        async for _ in texts(client, max_tokens=400):
            if prompt is None:
                sent = client.post("/completions", json=body(prompt=LONG, max_tokens=1))
                prompt = asyncio.create_task(sent)
            elif prompt.done():
                break
            else:
                beside += 1
        assert prompt is not None
        tokens = (await prompt).json()["usage"]["prompt_tokens"]
        assert tokens > 1500
        assert beside >= tokens // 100  # a step takes 64 of a prompt while others decode, since none is that short

    with serve("--keep-alive", "60", "--inter-token-latency", "0.001") as server:
        run(server, main)


def test_a_prompt_that_begins_like_another_is_not_computed_again(server: Server) -> None:
    async def main(client: httpx.AsyncClient) -> None:
        first = (await client.post("/completions", json=body(prompt=f"Once. {LONG}"))).json()
        before = metric(server, "faasmoe_prompt_tokens_cached_total")
        again = (await client.post("/completions", json=body(prompt=f"Once. {LONG}"))).json()
        assert again["choices"] == first["choices"]
        cached = metric(server, "faasmoe_prompt_tokens_cached_total") - before
        assert cached == first["usage"]["prompt_tokens"] - 1  # the last is run for its logits

    run(server, main)


def test_too_many_requests_are_sent_away_for_a_while(server: Server) -> None:
    async def main(client: httpx.AsyncClient) -> None:
        many = [
            asyncio.create_task(client.post("/completions", json=body(n=128, max_tokens=900))) for _ in range(10)
        ]
        done, waiting = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
        refused = [task.result() for task in done]
        for task in waiting:
            task.cancel()
        assert {answer.status_code for answer in refused} == {429}
        assert {answer.json()["error"]["code"] for answer in refused} == {"engine_busy"}
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)

    run(server, main)
    assert wait_for_metric(server, "faasmoe_num_requests_running", 0)
    assert wait_for_metric(server, "faasmoe_num_requests_waiting", 0)


@pytest.mark.parametrize("seed", range(2))
def test_characters_of_several_tokens_arrive_whole(server: Server, seed: int) -> None:
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(resolve(None).folder).encode("é€😀漢字")
    assert len(tokens) > 8

    async def main(client: httpx.AsyncClient) -> None:
        bias = {str(token): 30 for token in tokens}  # so that little but parts of characters is drawn
        asked = {"temperature": 1.5, "seed": seed, "logit_bias": bias, "max_tokens": 60}
        streamed = [text async for text in texts(client, **asked)]
        whole = (await client.post("/completions", json=body(**asked))).json()["choices"][0]["text"]
        assert "".join(streamed) == whole
        assert any(ord(character) > 0x7F for character in whole)

    run(server, main)
