"""An app whose orchestrator is played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx

from faasmoe.api.app import create_app
from faasmoe.api.http_options import HttpOptions
from faasmoe.api.metrics.metrics import Metrics
from faasmoe.fleet.starts import Starts
from faasmoe.platforms.base import PoolStatus
from faasmoe.protocol.config import About
from faasmoe.protocol.request import GenerationRequest, Piece
from tests.reading import InlineReader
from tests.tenancies import PlayedTenancy


class Stream:
    """Pieces that are there, then an error, or nothing more for ever."""

    def __init__(self, pieces: Sequence[Piece], end: Exception | None) -> None:
        self._pieces = list(pieces)
        self._end = end
        self.closed = False
        self.final: asyncio.Future[Piece | None] = asyncio.get_running_loop().create_future()

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        if self._pieces:
            piece = self._pieces.pop(0)
            if piece.last:
                self.final.set_result(piece)
            return piece
        if self._end:
            if not self.final.done():
                self.final.set_result(None)
            raise self._end
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future that nobody sets")

    async def aclose(self) -> None:
        self.closed = True


class Orchestrator:
    """Answers each request with `pieces` and then `end`; or refuses all with `refusal`."""

    about = About("arch", 1, 2, 256, max_model_len=100)
    state = "ok"
    running = 1
    starts = Starts()

    def __init__(
        self, pieces: Sequence[Piece] = (), end: Exception | None = None, refusal: Exception | None = None
    ):
        self._pieces, self._end, self._refusal = pieces, end, refusal
        self.requests: list[GenerationRequest] = []
        self.streams: list[Stream] = []
        self.submitted = asyncio.Event()

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[Stream]:
        if self._refusal:
            raise self._refusal
        self.requests += requests
        self.streams = [Stream(self._pieces, StopAsyncIteration() if self._done else self._end) for _ in requests]
        self.submitted.set()
        return self.streams

    @property
    def _done(self) -> bool:
        return bool(self._pieces) and self._pieces[-1].last


ANSWER = [Piece("夜", 2), Piece(" 🎈", 5, "stop")]


BODY = {"model": "m", "prompt": "p"}


def app_of(
    orchestrator: Orchestrator, tenancy: PlayedTenancy | None = None, options: HttpOptions | None = None
) -> Any:
    tenancy, options = tenancy or PlayedTenancy(), options or HttpOptions()
    played: Any = orchestrator
    books: Any = tenancy
    metrics = Metrics(played, lambda: PoolStatus(functions=[], memory_used=0), books)
    reader = InlineReader(options.bounds("m", orchestrator.about))
    return create_app("m", played, reader, metrics, books, options=options)


def post(
    orchestrator: Orchestrator,
    body: dict[str, Any],
    path: str = "completions",
    tenancy: PlayedTenancy | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(orchestrator, tenancy), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            content = json.dumps(body)
            more = {"Content-Type": "application/json", **(headers or {})}
            return await client.post(f"/v1/{path}", content=content, headers=more)

    return asyncio.run(run())


def events(answer: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


class Slow(Orchestrator):
    """Takes or refuses requests once its client has had `comments` of them."""

    def __init__(self, comments: int, pieces: Sequence[Piece] = (), refusal: Exception | None = None) -> None:
        super().__init__(pieces, refusal=refusal)
        self._comments = comments
        self._enough = asyncio.Event()

    def awaited(self, tenant: str) -> str:
        self._comments -= 1
        if not self._comments:
            self._enough.set()
        return "the model is being loaded"

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[Stream]:
        await self._enough.wait()
        return await super().submit(requests)
