"""A link to an orchestrator that is played."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

from faasmoe.fleet.link import Link
from faasmoe.fleet.stream import PieceStream
from faasmoe.protocol.messages import (
    HEADER,
    Accepted,
    Submit,
    ToGateway,
    pack,
    read_order,
)
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.util.liveness import HeartbeatMonitor, ProcessState
from tests.unit.clocks import run as run_in_virtual_time


class Writer:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.waiting = 0
        self.transport = SimpleNamespace(get_write_buffer_size=lambda: self.waiting)

    def write(self, frame: bytes) -> None:
        self.sent.append(frame)

    def orders(self) -> list[object]:
        return [read_order(frame[HEADER.size :]) for frame in self.sent]


class Played:
    """A link, and the orchestrator's part in it."""

    def __init__(self) -> None:
        self.reader, self.writer = asyncio.StreamReader(), Writer()
        self.state = ProcessState(stopped=False, runnable=False, cpu=1.0)
        monitor = HeartbeatMonitor(read=lambda *_: self.state)
        self.link = Link(self.reader, self.writer, monitor)  # type: ignore[arg-type]
        self.link.watch(7)
        self.running = asyncio.create_task(self.link.run())

    def say(self, *messages: ToGateway) -> None:
        self.reader.feed_data(b"".join(map(pack, messages)))

    async def submit(self, *ids: str, answer: ToGateway | None = None) -> list[PieceStream]:
        requests = tuple(GenerationRequest(request_id, (1,)) for request_id in ids)
        submitted = asyncio.create_task(self.link.submit(7, pack(Submit(7, requests)), ids))
        await turn()
        self.say(answer or Accepted(7))
        return await submitted


async def turn() -> None:
    """Let all tasks go on until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


def play(test: Callable[[Played], Awaitable[None]]) -> None:
    async def run() -> None:
        played = Played()
        try:
            await test(played)
        finally:
            played.running.cancel()
            await asyncio.gather(played.running, return_exceptions=True)

    run_in_virtual_time(run())


def piece(text: str, reason: str | None = None) -> Piece:
    return Piece(text, 1, reason)
