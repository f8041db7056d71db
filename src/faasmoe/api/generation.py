"""Run prompts on the orchestrator and shape what comes back, whole or as server-sent events."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from faasmoe.api.accounting import Accounts
from faasmoe.api.asked import Asked
from faasmoe.api.http.comments import SILENCE, Commented
from faasmoe.api.http.disconnect import CLIENT_LEFT, while_connected
from faasmoe.api.metrics.metrics import Metrics
from faasmoe.api.openai.errors import describe
from faasmoe.api.openai.logprobs import Collected
from faasmoe.api.openai.responses import Form
from faasmoe.fleet.fleet import Fleet
from faasmoe.fleet.piece_stream import PieceStream
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.tenancy.authentication import ANYBODY, Caller

_SCORES_AT_ONCE = 128  # tokens whose log-probabilities are written before others have their turn


@dataclass(frozen=True)
class Order:
    """What a client asks for, understood and checked."""

    form: Form
    model: str
    asked: Asked
    caller: Caller = ANYBODY

    def requests(self, request_id: str) -> list[GenerationRequest]:
        """One for each answer."""
        asked, caller = self.asked, self.caller
        each = [asked.params.choice(i) for i in range(asked.choices)]
        return [
            GenerationRequest(f"{request_id}-{i}", *one, caller.name, caller.weight, asked.priority)
            for i, one in enumerate((prompt, its) for prompt in asked.prompts for its in each)
        ]


class Generation:
    """One API request: `choices` answers to each of one or several prompts, given together."""

    def __init__(self, fleet: Fleet, metrics: Metrics, accounts: Accounts, order: Order) -> None:
        self._form = order.form
        self._metrics = metrics
        self._created = int(time.time())
        self._submitted = time.monotonic()
        self._id = f"{order.form.prefix}-{uuid.uuid4().hex}"
        self._order = order
        self._fleet = fleet
        self._requests = order.requests(self._id)
        self._completion_tokens = [0] * len(self._requests)
        self._streams: list[PieceStream] = []
        self._starting: asyncio.Task[None] | None = None
        lengths = list(map(len, order.asked.prompts))
        self._prompt_tokens = sum(lengths)
        self._account = accounts.open(order.caller, self._id, order.model, lengths, order.asked.choices)

    async def start(self) -> None:
        """Hand all prompts to the orchestrator. Raises what it refuses them with, or `LimitExceeded`."""
        with self._metrics.refusals(self._requests):
            asked = self._order.asked
            most = self._account.admit(asked.params.max_tokens, asked.limited)
            if most < asked.params.max_tokens:  # the tenant's limits end answers whose length was not stated
                asked = replace(asked, params=replace(asked.params, max_tokens=most))
                self._order = replace(self._order, asked=asked)
                self._requests = self._order.requests(self._id)
            try:
                self._streams = await self._fleet.submit(self._requests)
            except BaseException as error:
                self._account.refused(error)
                raise
            self._account.taken(self._streams)
            self._metrics.uses(self._requests, self._streams)

    async def begin(self, seconds: float) -> bool:
        """As `start`, but returns after so many seconds at most; `events` wait for the rest. Whether it has started."""
        self._starting = asyncio.create_task(self.start())
        await asyncio.wait([self._starting], timeout=seconds)
        if self._starting.done():
            await self._starting
        return bool(self._streams)

    @property
    def awaited(self) -> str:
        """What it waits for now, in words."""
        return "the next token is computed" if self._streams else self._fleet.awaited(self._order.caller.name)

    async def close(self) -> None:
        """Want no more of it. May be called at any time, and twice."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        for stream in self._streams:
            await stream.aclose()
        self._account.end()

    async def whole(self) -> bytes:
        """The answer as one object of JSON, from the start. Raises `EngineStopped` if the orchestrator fails."""
        await self.start()
        answers = [_Answer(self._form) for _ in self._requests]
        try:
            async with aclosing(self._pieces()) as pieces:
                async for index, piece in pieces:
                    answers[index].add(piece)
        finally:
            await self.close()
        await self._account.settle()
        choices = [answer.choice(i) for i, answer in enumerate(answers)]
        return msgspec.json.encode({**self._head(self._form.object), "choices": choices, "usage": self._usage()})

    async def events(self, include_usage: bool) -> AsyncGenerator[bytes]:
        """The answer, which was begun, as server-sent events, ended by `[DONE]`, or by an event with an error."""
        head = self._head(self._form.stream_object)
        extra = {"usage": None} if include_usage else {}
        seen: set[int] = set()
        try:
            if self._starting is not None:
                await self._starting
            async with aclosing(self._pieces()) as pieces:
                async for index, piece in pieces:
                    delta = self._form.delta(index, piece, index not in seen)
                    seen.add(index)
                    yield _event({**head, "choices": [delta], **extra})
            await self._account.settle()
        except Exception as error:  # noqa: BLE001 - the status has been sent; this is how clients learn of it
            yield _event(describe(error)[1])
            return
        if include_usage:
            yield _event({**head, "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _pieces(self) -> AsyncGenerator[tuple[int, Piece]]:
        return _merge([self._watch(i) for i in range(len(self._streams))])

    async def _watch(self, index: int) -> AsyncGenerator[tuple[int, Piece]]:
        with self._metrics.request(self._requests[index], self._submitted) as watch:
            async with aclosing(self._streams[index]) as pieces:
                async for piece in pieces:
                    watch.piece(piece)
                    self._account.piece(index, piece)
                    self._completion_tokens[index] = piece.tokens
                    for part in _parts(piece):
                        yield index, part
                        if part is not piece:
                            await asyncio.sleep(0)

    def _head(self, kind: str) -> dict[str, Any]:
        head = {"id": self._id, "object": kind, "created": self._created, "model": self._order.model}
        return head if self._order.asked.tier is None else {**head, "service_tier": self._order.asked.tier}

    def _usage(self) -> dict[str, int]:
        prompt, completion = self._prompt_tokens, sum(self._completion_tokens)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class EventStream(StreamingResponse):
    """A generation as server-sent events, which begins with it and ends with it, however it ends.

    What the generation is refused with within `SILENCE` seconds has a status of its own. Then the answer begins with
    status 200, with a comment each time that nothing has been sent for as long; errors are events from then on.
    """

    def __init__(self, generation: Generation, include_usage: bool) -> None:
        super().__init__(
            generation.events(include_usage),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},  # proxies are not to hold it back
        )
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it while the client is there. Raises what the generation is refused with."""
        since = asyncio.get_running_loop().time()
        try:
            if await while_connected(receive, self._generation.begin(SILENCE)) is None:
                await Response(status_code=CLIENT_LEFT)(scope, receive, send)
                return
            async with Commented(send, lambda: self._generation.awaited, SILENCE, since) as commented:
                await super().__call__(scope, receive, commented)
        finally:
            await self._generation.close()  # events that were never begun close nothing


class _Answer:
    """All pieces of one answer, put together."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._texts: list[str] = []
        self._scores = Collected(form.scores)
        self._last = Piece("", 0)

    def add(self, piece: Piece) -> None:
        self._texts.append(piece.text)
        self._scores.add(piece.logprobs)
        self._last = piece

    def choice(self, index: int) -> dict[str, Any]:
        return self._form.choice(index, replace(self._last, text="".join(self._texts)), self._scores.value())


def _parts(piece: Piece) -> Iterator[Piece]:
    """The same in pieces of which none takes long to write; the text comes with the last."""
    scores = piece.logprobs
    if len(scores) <= _SCORES_AT_ONCE:
        yield piece
        return
    starts = range(0, len(scores), _SCORES_AT_ONCE)
    for start in starts[:-1]:
        yield Piece("", piece.tokens, logprobs=scores[start : start + _SCORES_AT_ONCE])
    yield replace(piece, logprobs=scores[starts[-1] :])


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


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
