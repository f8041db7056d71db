"""Run prompts on the orchestrator and shape what comes back, whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from faasmoe.api.errors import describe
from faasmoe.api.metrics import Metrics
from faasmoe.errors import FaasmoeError
from faasmoe.orchestrator.client import OrchestratorClient
from faasmoe.orchestrator.piece_stream import PieceStream
from faasmoe.orchestrator.request import GenerationRequest, Piece, SamplingParams


@dataclass(frozen=True)
class Form:
    """How an endpoint names and shapes its answers."""

    prefix: str  # of ids
    object: str
    stream_object: str
    choice: Callable[[int, str, str | None], dict[str, Any]]  # index, whole text, finish reason
    delta: Callable[[int, str, str | None, bool], dict[str, Any]]  # the same of a piece; is it the first


class Generation:
    """One API request: one or several prompts, answered together."""

    def __init__(
        self,
        client: OrchestratorClient,
        metrics: Metrics,
        form: Form,
        model: str,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
    ) -> None:
        self._form = form
        self._metrics = metrics
        self._created = int(time.time())
        self._id = f"{form.prefix}-{uuid.uuid4().hex}"
        self._model = model
        self._prompt_tokens = sum(map(len, prompts))
        self._completion_tokens = [0] * len(prompts)
        self._client = client
        self._requests = [GenerationRequest(f"{self._id}-{i}", tuple(p), params) for i, p in enumerate(prompts)]
        self._streams: list[PieceStream] = []

    async def start(self) -> None:
        """Hand all prompts to the orchestrator. Raises what it refuses them with."""
        self._streams = await self._client.submit(self._requests)

    async def whole(self) -> dict[str, Any]:
        """The answer as one object. Raises `EngineStopped` if the orchestrator fails."""
        texts = [""] * len(self._streams)
        reasons: list[str | None] = [None] * len(self._streams)
        async with aclosing(self._pieces()) as pieces:
            async for index, piece in pieces:
                texts[index] += piece.text
                reasons[index] = piece.finish_reason
        choices = [self._form.choice(i, *both) for i, both in enumerate(zip(texts, reasons, strict=True))]
        return {**self._head(self._form.object), "choices": choices, "usage": self._usage()}

    async def events(self, include_usage: bool) -> AsyncGenerator[str]:
        """The answer as server-sent events, ended by `[DONE]`. A failure is an event with an error."""
        head = self._head(self._form.stream_object)
        extra = {"usage": None} if include_usage else {}
        seen: set[int] = set()
        try:
            async with aclosing(self._pieces()) as pieces:
                async for index, piece in pieces:
                    delta = self._form.delta(index, piece.text, piece.finish_reason, index not in seen)
                    seen.add(index)
                    yield _event({**head, "choices": [delta], **extra})
        except FaasmoeError as error:
            yield _event(describe(error)[1])
            return
        if include_usage:
            yield _event({**head, "choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    def _pieces(self) -> AsyncGenerator[tuple[int, Piece]]:
        return _merge([self._watch(i) for i in range(len(self._streams))])

    async def _watch(self, index: int) -> AsyncGenerator[tuple[int, Piece]]:
        with self._metrics.request(self._requests[index]) as watch:
            async with aclosing(self._streams[index]) as pieces:
                async for piece in pieces:
                    watch.piece(piece)
                    self._completion_tokens[index] = piece.tokens
                    yield index, piece

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _usage(self) -> dict[str, int]:
        prompt, completion = self._prompt_tokens, sum(self._completion_tokens)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _merge(streams: Sequence[AsyncGenerator[tuple[int, Piece]]]) -> AsyncGenerator[tuple[int, Piece]]:
    """Items of all streams as they come. Closing it closes them; the first error ends it."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    queue: asyncio.Queue[tuple[int, Piece] | None] = asyncio.Queue(len(streams))  # a slow reader is seen by all

    async def feed(stream: AsyncGenerator[tuple[int, Piece]]) -> None:
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    await queue.put(item)
        except Exception:
            await queue.put(None)
            raise
        await queue.put(None)

    tasks = [asyncio.create_task(feed(stream)) for stream in streams]
    try:
        open_streams = len(tasks)
        while open_streams:
            got = await queue.get()
            if got is None:
                open_streams -= 1
            else:
                yield got
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
