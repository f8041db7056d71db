"""Serves the calls of one client: a batch comes as one frame, runs side by side, and is answered by one frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from faasmoe.errors import ServingError, UserError
from faasmoe.platforms.base import Call, Platform, Replies
from faasmoe.platforms.cluster.protocol import call_batch, messages
from faasmoe.platforms.cluster.protocol.call_batch import BatchReplies, CallBatch
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import HEADER, Frame, FrameKind, Outgoing, framed
from faasmoe.platforms.cluster.protocol.messages import Failure, Traffic
from faasmoe.platforms.local.protocol.segment import LARGEST
from faasmoe.platforms.local.protocol.wire import Lost

_BEGIN_SECONDS = 30.0  # for the rest of a frame that has begun, and for a client to take the replies
_DRAINING = Failure(kind="draining", cause="the node drains")


class Batches:
    """The calls of one connection. `platform` is a client of the node's pool that nobody else uses."""

    def __init__(
        self,
        connection: Connection,
        platform: Platform,
        draining: Callable[[], bool],
        lacks: Callable[[Iterable[str]], Failure | None],
    ) -> None:
        """`lacks` tells why functions cannot run here."""
        self.running = False
        self.work: dict[str, float] = {}  # of the calls that were answered, by function
        self._answered = self._frames = self._received = self._sent = 0
        self._busy = self._busy_gb = 0.0
        self._connection = connection
        self._platform = platform
        self._draining = draining
        self._lacks = lacks
        self._payloads = memoryview(bytearray())
        self._shared = memoryview(bytearray())

    @property
    def traffic(self) -> Traffic:
        """What has come and gone, or is about to go: whoever has a reply finds it counted. For any thread."""
        return Traffic(self._answered, self._frames, self._received, self._sent, self._busy, self._busy_gb)

    def serve(self) -> NoReturn:
        """Serve until the client is gone. Raises `Lost`."""
        while True:
            frame = self._connection.frame(None)
            if frame.kind != FrameKind.BATCH:
                raise Lost("a frame of another kind than a batch")
            self.running = True
            try:
                self._answer(frame)
            finally:
                self.running = False

    def _answer(self, frame: Frame) -> None:
        head, body = frame.head.nbytes, frame.body
        batch = call_batch.read_batch(frame.head, body)
        calls, shared = self._receive(batch)
        self._frames += 1
        self._received += HEADER + head + body
        if self._draining():
            self._fail(_DRAINING)
            return
        if failure := self._lacks(call.function for call in batch.calls):
            self._fail(failure)
            return
        deadline = time.monotonic() + batch.seconds
        try:
            replies = self._platform.invoke_many(calls, deadline, shared)
        except (ServingError, UserError) as error:
            self._fail(Failure.of(error))
        else:
            for call in calls:
                self.work[call.function] = self.work.get(call.function, 0.0) + call.work
            self._reply(batch.number, replies)

    def _receive(self, batch: CallBatch) -> tuple[Sequence[Call], memoryview | None]:
        """The calls and their shared buffer, whose bytes are received in place."""
        length = sum(call.payload for call in batch.calls)
        self._payloads, self._shared = _room(self._payloads, length), _room(self._shared, batch.shared)
        room, row = [self._payloads[:length]], batch.row
        for first, rows in zip(batch.runs[::2], batch.runs[1::2], strict=True):
            room.append(self._shared[first * row : (first + rows) * row])
        self._connection.fill(room, time.monotonic() + _BEGIN_SECONDS)
        calls, at = [], 0
        for call in batch.calls:
            payload = self._payloads[at : at + call.payload]
            calls.append(Call(call.function, [payload], call.reply, call.work))
            at += call.payload
        return calls, self._shared[: batch.shared] if batch.shared else None

    def _reply(self, number: int, replies: Replies) -> None:
        head = messages.encode(
            BatchReplies(number, [len(reply) for reply in replies], replies.busy, replies.memory)
        )
        self._answered += len(replies)
        self._busy += sum(replies.busy)
        self._busy_gb += sum(map(mul, replies.busy, replies.memory)) / 1e9
        self._send(framed(FrameKind.REPLIES, head, replies.data))

    def _fail(self, failure: Failure) -> None:
        self._send(framed(FrameKind.MESSAGE, messages.encode(failure)))

    def _send(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        self._sent += sum(memoryview(part).nbytes for part in parts)
        self._connection.push(Outgoing(parts), time.monotonic() + _BEGIN_SECONDS)


def _room(room: memoryview, nbytes: int) -> memoryview:
    """Room for so many bytes, used again while it is large enough. Raises `Lost` if they are too many."""
    if nbytes > LARGEST:
        raise Lost(f"a batch with {nbytes} bytes; {LARGEST} are the limit")
    return room if nbytes <= room.nbytes else memoryview(bytearray(nbytes))
