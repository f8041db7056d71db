"""Runs one API request on an orchestrator, and gives its response whole or as a stream in the shape of its API."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from faasmoe.api.disconnect import CLIENT_LEFT, while_connected
from faasmoe.api.errors import describe
from faasmoe.api.http.keep_alive import INTERVAL, KeepAlive
from faasmoe.api.interface import Endpoint, Head, ResponseStream, Usage
from faasmoe.api.metering.request_meter import RequestMeter, RequestMeters
from faasmoe.api.metrics.metrics import Metrics
from faasmoe.api.parsed_request import ParsedRequest
from faasmoe.fleet.fleet import Fleet
from faasmoe.fleet.stream import PieceStream
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.tenancy.authentication import Caller

_SCORES_AT_ONCE = 128  # tokens whose log-probabilities are encoded before the event loop runs other tasks


class Generation:
    """One API request: `parsed.choices` responses to each of one or several prompts."""

    def __init__(
        self,
        *,
        endpoint: Endpoint[Any],
        model: str,
        parsed: ParsedRequest[Any],
        caller: Caller,
        fleet: Fleet,
        metrics: Metrics,
        meters: RequestMeters,
    ) -> None:
        self._endpoint = endpoint
        self._metrics = metrics
        self._submitted = time.monotonic()
        self._id = f"{endpoint.id_prefix}-{uuid.uuid4().hex}"
        self._parsed = parsed
        self._caller = caller
        self._fleet = fleet
        self._requests = self._requests_of(parsed)
        self._streams: list[PieceStream] = []
        self._starting: asyncio.Task[None] | None = None
        lengths = list(map(len, parsed.prompts))
        self._head = Head(
            id=self._id,
            created=int(time.time()),
            model=model,
            prompt_tokens=sum(lengths),
            parsed=parsed,
            tenant=caller.name,
        )
        self._meter = RequestMeter(
            meters,
            caller=caller,
            request_id=self._id,
            model=model,
            prompts=lengths,
            choices=parsed.choices,
            end_user=parsed.end_user,
        )

    def _requests_of(self, parsed: ParsedRequest[Any]) -> list[GenerationRequest]:
        """One request to the orchestrator for each response."""
        each = [parsed.params.choice(i) for i in range(parsed.choices)]
        caller, context = self._caller, self._fleet.about.max_model_len
        return [
            GenerationRequest(
                f"{self._id}-{i}",
                prompt,
                params.within(context - len(prompt)),
                tenant=caller.name,
                weight=caller.weight,
                priority=parsed.priority,
            )
            for i, (prompt, params) in enumerate(product(parsed.prompts, each))
        ]

    async def start(self) -> None:
        """Submit all prompts to an orchestrator. Raises its refusal, or `LimitExceeded`."""
        with self._metrics.refusals(self._requests):
            parsed = self._parsed
            most = self._meter.admit(parsed.params.max_tokens, parsed.limited)
            if most < parsed.params.max_tokens:  # responses whose length was not stated end at the tenant's limits
                parsed = replace(parsed, params=replace(parsed.params, max_tokens=most))
                self._requests = self._requests_of(parsed)
            try:
                self._streams = await self._fleet.submit(self._requests)
            except BaseException as error:
                self._meter.refused(error)
                raise
            self._meter.taken(self._streams)
            self._metrics.uses(self._requests, self._streams)

    async def begin(self, seconds: float) -> bool:
        """Start, but wait for `seconds` at most; `events` waits on. Returns whether an orchestrator has taken it."""
        self._starting = asyncio.create_task(self.start())
        await asyncio.wait([self._starting], timeout=seconds)
        if self._starting.done():
            await self._starting
        return bool(self._streams)

    @cached_property
    def _response_stream(self) -> ResponseStream:
        return self._endpoint.stream(self._head)

    def keep_alive(self) -> bytes:
        """The bytes of a keep-alive message in its stream."""
        awaited = "the next token is computed" if self._streams else self._fleet.awaited(self._caller.name)
        return self._response_stream.keep_alive(awaited)

    async def close(self) -> None:
        """Cancel what still runs. May be called at any time, and twice."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        for stream in self._streams:
            await stream.aclose()
        self._meter.end()

    async def whole(self) -> bytes:
        """Generate, and return the body of the whole response. Raises as `start`, and `EngineStopped` if that fails."""
        await self.start()
        response = self._endpoint.whole(self._head)
        try:
            async with aclosing(self._pieces()) as pieces:
                async for index, piece in pieces:
                    response.piece(index, piece)
        finally:
            await self.close()
        await self._meter.settle()
        return response.body(self._usage())

    async def events(self) -> AsyncGenerator[bytes]:
        """Server-sent events of the response, after `begin`. If the response fails, an error is the last event."""
        stream = self._response_stream
        try:
            if self._starting is not None:
                await self._starting
            if begin := stream.begin():
                yield begin
            async with aclosing(self._pieces()) as pieces:
                async for index, piece in pieces:
                    if events := stream.piece(index, piece):  # no bytes would count as news for `KeepAlive`
                        yield events
            await self._meter.settle()
        except Exception as error:  # noqa: BLE001 - the status has been sent, so that an event tells the client
            yield stream.error(describe(error))
            return
        yield stream.end(self._usage())

    def _pieces(self) -> AsyncGenerator[tuple[int, Piece]]:
        return _merge([self._watch(i) for i in range(len(self._streams))])

    async def _watch(self, index: int) -> AsyncGenerator[tuple[int, Piece]]:
        with self._metrics.request(self._requests[index], self._submitted) as watch:
            async with aclosing(self._streams[index]) as pieces:
                async for piece in pieces:
                    watch.piece(piece, self._meter.piece(index, piece))
                    for part in _parts(piece):
                        yield index, part
                        if part is not piece:
                            await asyncio.sleep(0)

    def _usage(self) -> Usage:
        meter = self._meter
        return Usage(self._head.prompt_tokens, meter.completion_tokens, meter.cached_tokens)


class EventStream(StreamingResponse):
    """The HTTP response that streams a generation; when it ends, with or without an error, the generation is closed.

    If the generation is refused within `INTERVAL` seconds, the response has the error's status. After that it has
    status 200 and begins with a keep-alive message, which is repeated after each such silence; errors are events.
    """

    def __init__(self, generation: Generation, more_headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            generation.events(),
            media_type="text/event-stream",
            headers={  # proxies must not buffer it
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                **(more_headers or {}),
            },
        )
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until the client disconnects. Raises the generation's refusal."""
        since = asyncio.get_running_loop().time()
        try:
            if await while_connected(receive, self._generation.begin(INTERVAL)) is None:
                await Response(status_code=CLIENT_LEFT)(scope, receive, send)
                return
            async with KeepAlive(send, self._generation.keep_alive, INTERVAL, since) as sending:
                await super().__call__(scope, receive, sending)
        finally:
            await self._generation.close()  # a generator of events that never ran closes nothing


def _parts(piece: Piece) -> Iterator[Piece]:
    """Split a piece into parts, none of which takes long to encode; the last part has the text."""
    scores = piece.logprobs
    if len(scores) <= _SCORES_AT_ONCE:
        yield piece
        return
    starts = range(0, len(scores), _SCORES_AT_ONCE)
    for start in starts[:-1]:
        yield Piece("", piece.tokens, logprobs=scores[start : start + _SCORES_AT_ONCE])
    yield replace(piece, logprobs=scores[starts[-1] :])


async def _merge(streams: Sequence[AsyncGenerator[tuple[int, Piece]]]) -> AsyncGenerator[tuple[int, Piece]]:
    """Merge streams in the order in which items arrive. Closing it closes all streams; the first error ends it."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    queue: asyncio.Queue[tuple[int, Piece] | Exception | None]
    queue = asyncio.Queue(len(streams))  # a slow reader holds up all streams

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
