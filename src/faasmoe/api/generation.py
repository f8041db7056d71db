"""Run prompts on the orchestrator and shape what comes back, whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from faasmoe.api.errors import describe
from faasmoe.api.forms import Form
from faasmoe.api.metrics import Metrics
from faasmoe.orchestrator.fleet import Fleet
from faasmoe.orchestrator.piece_stream import PieceStream
from faasmoe.orchestrator.request import GenerationRequest, Piece, SamplingParams, TokenLogprob


class Generation:
    """One API request: `choices` answers to each of one or several prompts, given together."""

    def __init__(
        self,
        fleet: Fleet,
        metrics: Metrics,
        form: Form,
        model: str,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        choices: int = 1,
    ) -> None:
        self._form = form
        self._metrics = metrics
        self._created = int(time.time())
        self._submitted = time.monotonic()
        self._id = f"{form.prefix}-{uuid.uuid4().hex}"
        self._model = model
        self._prompt_tokens = sum(map(len, prompts))
        self._fleet = fleet
        each = [params.choice(i) for i in range(choices)]
        asked = [(tuple(prompt), its) for prompt in prompts for its in each]
        self._requests = [GenerationRequest(f"{self._id}-{i}", *one) for i, one in enumerate(asked)]
        self._completion_tokens = [0] * len(asked)
        self._streams: list[PieceStream] = []

    async def start(self) -> None:
        """Hand all prompts to the orchestrator. Raises what it refuses them with."""
        with self._metrics.refusals(self._requests):
            self._streams = await self._fleet.submit(self._requests)

    async def close(self) -> None:
        """Want no more of it. May be called at any time, and twice."""
        for stream in self._streams:
            await stream.aclose()

    async def whole(self) -> dict[str, Any]:
        """The answer as one object, from the start. Raises `EngineStopped` if the orchestrator fails."""
        await self.start()
        answers = [_Answer() for _ in self._requests]
        async with aclosing(self._pieces()) as pieces:
            async for index, piece in pieces:
                answers[index].add(piece)
        choices = [self._form.choice(i, answer.joined()) for i, answer in enumerate(answers)]
        return {**self._head(self._form.object), "choices": choices, "usage": self._usage()}

    async def events(self, include_usage: bool) -> AsyncGenerator[str]:
        """The answer as server-sent events, ended by `[DONE]`, or by an event with an error."""
        head = self._head(self._form.stream_object)
        extra = {"usage": None} if include_usage else {}
        seen: set[int] = set()
        try:
            async with aclosing(self._pieces()) as pieces:
                async for index, piece in pieces:
                    delta = self._form.delta(index, piece, index not in seen)
                    seen.add(index)
                    yield _event({**head, "choices": [delta], **extra})
        except Exception as error:  # noqa: BLE001 - the status has been sent; this is how clients learn of it
            yield _event(describe(error)[1])
            return
        if include_usage:
            yield _event({**head, "choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    def _pieces(self) -> AsyncGenerator[tuple[int, Piece]]:
        return _merge([self._watch(i) for i in range(len(self._streams))])

    async def _watch(self, index: int) -> AsyncGenerator[tuple[int, Piece]]:
        with self._metrics.request(self._requests[index], self._submitted) as watch:
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


class EventStream(StreamingResponse):
    """A started generation as server-sent events. The generation ends with it, however it ends."""

    def __init__(self, generation: Generation, include_usage: bool) -> None:
        super().__init__(
            generation.events(include_usage),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},  # proxies are not to hold it back
        )
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it while the client is there."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._generation.close()  # events that were never begun close nothing


class _Answer:
    """All pieces of one answer, put together."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._last = Piece("", 0)

    def add(self, piece: Piece) -> None:
        self._texts.append(piece.text)
        self._logprobs += piece.logprobs
        self._last = piece

    def joined(self) -> Piece:
        text, last = "".join(self._texts), self._last
        return Piece(text, last.tokens, last.finish_reason, logprobs=tuple(self._logprobs))


async def _merge(streams: Sequence[AsyncGenerator[tuple[int, Piece]]]) -> AsyncGenerator[tuple[int, Piece]]:
    """Items of all streams as they come. Closing it closes them; the first error ends it."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    queue: asyncio.Queue[tuple[int, Piece] | Exception | None]
    queue = asyncio.Queue(len(streams))  # so that a slow reader is seen by all

    async def feed(stream: AsyncGenerator[tuple[int, Piece]]) -> None:
        async with aclosing(stream) as items:
            try:
                async for item in items:
                    await queue.put(item)
                await queue.put(None)
            except Exception as error:  # noqa: BLE001 - raised to the reader
                await queue.put(error)

    tasks = [asyncio.create_task(feed(stream)) for stream in streams]
    try:
        open_streams = len(tasks)
        while open_streams:
            got = await queue.get()
            if isinstance(got, Exception):
                raise got
            if got is None:
                open_streams -= 1
            else:
                yield got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
