"""The gateway's end of its socket to one orchestrator process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn, Self

from faasmoe.errors import EngineBusy, EngineStopped, FaasmoeError, MessageError, ProcessLost
from faasmoe.fleet.stream import Inbox, PieceStream
from faasmoe.protocol.errors import error_of
from faasmoe.protocol.messages import (
    HEADER,
    LARGEST,
    Accepted,
    Cancel,
    Pieces,
    Refused,
    ServedTokens,
    StatsReport,
    StatsRequest,
    ToGateway,
    body_length,
    pack,
    read_answer,
)
from faasmoe.protocol.stats import EngineStats
from faasmoe.util.liveness import TICK, HeartbeatMonitor


class Link:
    """Sends requests to one orchestrator and hands out their pieces. For one asyncio loop.

    The orchestrator sends a heartbeat each second.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, monitor: HeartbeatMonitor | None = None
    ) -> None:
        """`monitor` tells when the orchestrator has been silent for too long; it is ticked until `close`."""
        self._reader = reader
        self._writer = writer
        self._monitor = monitor or HeartbeatMonitor()
        self._ticking = asyncio.get_running_loop().call_later(TICK, self._tick)
        self.on_report: Callable[[StatsReport], None] | None = None
        self._inboxes: dict[str, Inbox] = {}  # by request id, until the last piece is received
        self._cancelled: set[str] = set()  # of these
        self._answers: dict[int, _Asked] = {}  # by number of the Submit
        self._report: asyncio.Future[None] | None = None  # that `refresh` waits for
        self._failed: str | None = None  # the reason
        self.latest = EngineStats()  # of the last report

    @classmethod
    async def over(cls, connection: socket.socket, monitor: HeartbeatMonitor | None = None) -> Self:
        """Make a link that owns a connected socket. Raises `OSError`; the socket is closed then."""
        try:
            return cls(*await asyncio.open_unix_connection(sock=connection), monitor)
        except BaseException:
            connection.close()
            raise

    def watch(self, pid: int) -> None:
        """Have the state of process `pid` decide how long the orchestrator may be silent."""
        self._monitor.watch(pid)

    @property
    def lost(self) -> bool:
        """Whether the link has failed or was closed."""
        return self._failed is not None

    @property
    def busy(self) -> bool:
        """Whether any request runs or has no answer yet."""
        return bool(self._inboxes or self._answers)

    async def receive(self) -> ToGateway:
        """Return the next message. Raises `ProcessLost` if the orchestrator is gone or silent, or `MessageError`."""
        try:
            header = await self._reader.readexactly(HEADER.size)
            body = await self._reader.readexactly(body_length(header))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ProcessLost("the orchestrator has ended") from error
        self._monitor.beat()
        return read_answer(body)

    async def run(self) -> NoReturn:
        """Hand out messages until `receive` raises."""
        while True:
            message = await self.receive()
            if isinstance(message, Pieces):
                self._deliver(message)
            elif isinstance(message, Accepted):
                self._answer(message.number, None)
            elif isinstance(message, Refused):
                self._answer(message.number, error_of(message.error))
            elif isinstance(message, StatsReport):
                self.latest = message.stats
                if self.on_report:
                    self.on_report(message)
                if self._report and not self._report.done():
                    self._report.set_result(None)
            else:
                raise MessageError(f"{type(message).__name__} is not expected from a running orchestrator")

    def send(self, frame: bytes) -> None:
        """Send a frame. Raises `EngineBusy` if the orchestrator does not read earlier ones."""
        if self._writer.transport.get_write_buffer_size() > LARGEST:
            raise EngineBusy("the orchestrator does not keep up with requests")
        self._writer.write(frame)

    async def submit(self, number: int, frame: bytes, ids: Sequence[str]) -> list[PieceStream]:
        """Send a packed `Submit` of requests `ids` and wait for its answer. Raises the error of a refusal."""
        if self._failed is not None:
            raise EngineStopped(self._failed)
        self.send(frame)
        streams = []
        for request_id in ids:
            inbox = self._inboxes[request_id] = Inbox()
            streams.append(PieceStream(inbox, partial(self.cancel, request_id)))
        asked = self._answers[number] = _Asked(ids)
        try:
            await asked.answer
        except BaseException:
            for stream in streams:
                await stream.aclose()
            raise
        return streams

    @property
    def requests(self) -> int:
        """Requests that run or have no answer yet."""
        return len(self._inboxes)

    def tell_served(self, tokens: dict[str, int]) -> None:
        """Tell the orchestrator how many tokens others have served to tenants, unless it does not keep up."""
        with suppress(EngineBusy):
            self.send(pack(ServedTokens(tokens)))

    def cancel(self, request_id: str) -> None:
        """Cancel a request; its last piece is still received. Unknown ids are ignored."""
        inbox = self._inboxes.get(request_id)
        if inbox is not None and request_id not in self._cancelled:
            inbox.close()
            self._cancelled.add(request_id)
            with suppress(EngineBusy):  # then nothing it sends is taken either, and it is soon given up
                self.send(pack(Cancel((request_id,))))

    async def refresh(self) -> None:
        """Fetch the newest stats into `latest`, unless the orchestrator ends meanwhile."""
        if self._failed is not None:
            return
        if self._report is None or self._report.done():
            self._report = asyncio.get_running_loop().create_future()
            self.send(pack(StatsRequest()))
        await asyncio.wait([self._report])

    def cut(self, reason: str) -> None:
        """Cancel all requests: they fail with `EngineStopped`, and their last pieces still tell their usage."""
        for request_id, inbox in list(self._inboxes.items()):
            inbox.fail(EngineStopped(reason))
            self.cancel(request_id)

    def fail(self, reason: str) -> None:
        """Let all requests fail with `EngineStopped`. May be called twice: the first reason stays."""
        if self._failed is not None:
            return
        self._failed = reason
        for inbox in self._inboxes.values():
            inbox.fail(EngineStopped(reason))
            inbox.settle(None)
        self._inboxes.clear()
        self._cancelled.clear()
        for asked in self._answers.values():
            asked.settle(EngineStopped(reason))
        self._answers.clear()
        if self._report:
            self._report.cancel()

    def abort(self) -> None:
        """Close the socket at once; frames that the orchestrator has not read are lost. May be called twice."""
        self.fail("the orchestrator was ended")
        self._ticking.cancel()
        self._writer.transport.abort()

    async def close(self) -> None:
        """`abort`, and wait until that is done. May be called twice."""
        self.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._ticking = loop.call_later(TICK, self._tick)
        loop.call_soon(self._judge)  # after `receive` has been given what has come

    def _judge(self) -> None:
        if lost := self._monitor.tick():
            self._ticking.cancel()
            self._reader.set_exception(ProcessLost(f"the orchestrator {lost}"))

    def _deliver(self, message: Pieces) -> None:
        for request_id, piece in message.pieces:
            inbox = self._inboxes.get(request_id)
            if inbox is None:
                continue  # of a submission that was refused
            if not inbox.put(piece):
                self.cancel(request_id)
            if piece.last:
                self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        if inbox := self._inboxes.pop(request_id, None):
            inbox.settle(None)
        self._cancelled.discard(request_id)

    def _answer(self, number: int, error: FaasmoeError | None) -> None:
        asked = self._answers.pop(number, None)
        if asked is None:
            return
        if error is not None:
            for request_id in asked.ids:
                self._forget(request_id)
        asked.settle(error)


class _Asked:
    """A submission that has no answer yet."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, error: FaasmoeError | None) -> None:
        """Give the answer to `Link.submit`, unless that was cancelled."""
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(None)
        else:
            self.answer.set_exception(error)
