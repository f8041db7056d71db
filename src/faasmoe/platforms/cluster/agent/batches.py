"""Serves the calls of one client: a batch comes as one frame, runs side by side, and is answered by one frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import mul
from typing import NoReturn

from faasmoe.errors import ServingError, UserError
from faasmoe.platforms.base import Call, Platform, Replies
from faasmoe.platforms.cluster.protocol import call_batch, messages
from faasmoe.platforms.cluster.protocol.call_batch import BatchReplies
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import HEADER, Frame, FrameKind, Outgoing, framed
from faasmoe.platforms.cluster.protocol.messages import Failure, Traffic
from faasmoe.platforms.local.protocol.segment import LARGEST
from faasmoe.platforms.local.protocol.wire import Lost

_BEGIN_SECONDS = 30.0  # for the rest of a frame that has begun, and for a client to take the replies
_MOST_LAYOUTS, _LONGEST_HEAD = 256, 4 << 10  # that are kept, and bytes of the head of each
_DRAINING = Failure(kind="draining", cause="the node drains")


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the head of a batch says, in the terms of the rooms for its bytes."""

    body: int  # bytes
    room: list[memoryview]  # for them, in their order
    calls: list[Call]
    shared: memoryview | None
    seconds: float  # until the deadline


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
        self._layouts: dict[bytes, _Layout] = {}  # by the head; valid for these rooms

    @property
    def traffic(self) -> Traffic:
        """What has come and gone, or is about to go: whoever has a reply finds it counted. For any thread."""
        return Traffic(self._answered, self._frames, self._received, self._sent, self._busy, self._busy_gb)

    def serve(self) -> NoReturn:
        """Serve until the client is gone. Raises `Lost`."""
        while True:
            frame = self._connection.batch()
            if frame.kind != FrameKind.BATCH:
                raise Lost("a frame of another kind than a batch")
            self.running = True
            try:
                self._answer(frame)
            finally:
                self.running = False

    def _answer(self, frame: Frame) -> None:
        head = bytes(frame.head)
        if (layout := self._layouts.get(head)) is None or layout.body != frame.body:
            layout = self._lay_out(head, frame.body)
        self._connection.fill(layout.room, time.monotonic() + _BEGIN_SECONDS)
        self._frames += 1
        self._received += HEADER + len(head) + frame.body
        if self._draining():
            self._fail(_DRAINING)
            return
        if failure := self._lacks(call.function for call in layout.calls):
            self._fail(failure)
            return
        deadline = time.monotonic() + layout.seconds
        try:
            replies = self._platform.invoke_many(layout.calls, deadline, layout.shared)
        except (ServingError, UserError) as error:
            self._fail(Failure.of(error))
        else:
            for call in layout.calls:
                self.work[call.function] = self.work.get(call.function, 0.0) + call.work
            self._reply(frame.number, replies)

    def _lay_out(self, head: bytes, body: int) -> _Layout:
        """Where the bytes of a batch go, and its calls. The same batches come again and again. Raises `Lost`."""
        batch = call_batch.read_batch(memoryview(head), body)
        length = sum(call.payload for call in batch.calls)
        grows = length > self._payloads.nbytes or batch.shared > self._shared.nbytes
        self._payloads, self._shared = _room(self._payloads, length), _room(self._shared, batch.shared)
        if grows or len(self._layouts) >= _MOST_LAYOUTS:
            self._layouts.clear()
        room, row = [self._payloads[:length]], batch.row
        for first, rows in zip(batch.runs[::2], batch.runs[1::2], strict=True):
            room.append(self._shared[first * row : (first + rows) * row])
        calls, at = [], 0
        for call in batch.calls:
            payload = self._payloads[at : at + call.payload]
            calls.append(Call(call.function, [payload], call.reply, call.work))
            at += call.payload
        shared = self._shared[: batch.shared] if batch.shared else None
        layout = _Layout(body, room, calls, shared, batch.seconds)
        if len(head) <= _LONGEST_HEAD:
            self._layouts[head] = layout
        return layout

    def _reply(self, number: int, replies: Replies) -> None:
        data = replies.data
        head = messages.encode(BatchReplies(list(map(len, data)), replies.busy, replies.memory))
        self._answered += len(data)
        self._busy += sum(replies.busy)
        self._busy_gb += sum(map(mul, replies.busy, replies.memory)) / 1e9
        self._send(framed(FrameKind.REPLIES, head, data, number))

    def _fail(self, failure: Failure) -> None:
        self._send(framed(FrameKind.MESSAGE, messages.encode(failure)))

    def _send(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        self._sent += sum(map(len, parts))
        self._connection.push(Outgoing(parts), time.monotonic() + _BEGIN_SECONDS)


def _room(room: memoryview, nbytes: int) -> memoryview:
    """Room for so many bytes, used again while it is large enough. Raises `Lost` if they are too many."""
    if nbytes > LARGEST:
        raise Lost(f"a batch with {nbytes} bytes; {LARGEST} are the limit")
    return room if nbytes <= room.nbytes else memoryview(bytearray(nbytes))
