"""The bytes of a batch of calls: small payloads go in frames, large ones in shared memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from faasmoe.errors import PayloadError
from faasmoe.platforms.base import Call
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.protocol.frame import INLINE, MAX_INLINE, Header
from faasmoe.platforms.local.protocol.segment import LARGEST, Segment, padded


@dataclass(slots=True)
class EncodedCall:
    """A call, ready to be sent."""

    header: Header
    inline: Sequence[Buffer]
    uses_segments: bool


class CallBuffers:
    """A client's two segments of shared memory: one for payloads, one for replies."""

    def __init__(self) -> None:
        self.generation = 1  # of the segments; an instance that knows an older one must be sent the new ones
        self.laid_out = 0.0  # when the current batch was, in `time.monotonic`
        self._requests: Segment | None = None
        self._replies: Segment | None = None

    def lay_out(self, calls: Sequence[Call], shared: Buffer | None) -> list[EncodedCall]:
        """Encode a batch; large payloads are written into shared memory, over those of the last batch."""
        self.laid_out = time.monotonic()
        if shared is None and (encoded_calls := _inline(calls)) is not None:
            return encoded_calls
        lengths = [sum(map(len, call.payload)) for call in calls]
        shared_length = 0 if shared is None else len(shared)
        out = padded(shared_length) + sum(padded(n) for n in lengths if n > MAX_INLINE)
        back = sum(padded(call.reply_bytes) for call in filter(_large_reply, calls))
        requests, replies = self._segments(out, back)
        at, _ = requests.write([shared]) if shared is not None and shared_length else (0, 0)
        encoded_calls = []
        for call, length in zip(calls, lengths, strict=True):
            area = (replies.place(call.reply_bytes), call.reply_bytes) if _large_reply(call) else (0, 0)
            place = requests.write(call.payload) if length > MAX_INLINE else (INLINE, length)
            inline = call.payload if place[0] == INLINE else ()
            encoded_calls.append(EncodedCall(Header(*place, at, shared_length, *area), inline, True))
        return encoded_calls

    def _segments(self, out: int, back: int) -> tuple[Segment, Segment]:
        for nbytes in (out, back):
            if nbytes > LARGEST:
                raise PayloadError(f"a batch of calls with {nbytes} bytes; {LARGEST} are the limit")
        if self._requests and self._replies and out <= self._requests.size and back <= self._replies.size:
            self._requests.clear()
            self._replies.clear()
            return self._requests, self._replies
        if (
            self._requests and self._replies
        ):  # never smaller, or batches of different kinds would renew them each time
            out, back = max(out, self._requests.size), max(back, self._replies.size)
        self.renew()
        self._requests = Segment(out, writable=False)
        self._replies = Segment(back, writable=True)
        return self._requests, self._replies

    def introduce(self, generation: int) -> Sequence[int]:
        """Return the descriptors to send to an instance that knows the segments of `generation`."""
        if generation == self.generation or self._requests is None or self._replies is None:
            return ()
        return self._requests.fd, self._replies.fd

    def stored(self, encoded: EncodedCall, length: int) -> memoryview:
        """Return a reply in shared memory. Raises `PayloadError` if it is longer than its room."""
        header = encoded.header
        if self._replies is None or length > header.reply_length:
            raise PayloadError(f"a reply of {length} bytes in a room of {header.reply_length}")
        return self._replies.view[header.reply_at : header.reply_at + length]

    def renew(self) -> None:
        """Use other segments from now on: a late reply may still be written into these."""
        for segment in (self._requests, self._replies):
            if segment is not None:
                segment.close()
        self._requests = self._replies = None
        self.generation += 1


def _inline(calls: Sequence[Call]) -> list[EncodedCall] | None:
    """Encode calls that all go in frames; None if any does not."""
    encoded_calls = []
    for call in calls:
        length = sum(map(len, call.payload))
        if length > MAX_INLINE or call.reply_bytes > MAX_INLINE:
            return None
        encoded_calls.append(EncodedCall(_inline_header(length), call.payload, False))
    return encoded_calls


@lru_cache(1024)
def _inline_header(length: int) -> Header:
    return Header(INLINE, length, 0, 0, 0, 0)


def _large_reply(call: Call) -> bool:
    return call.reply_bytes > MAX_INLINE
