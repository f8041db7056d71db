"""A batch of calls and its replies: heads of the frames of kind BATCH and REPLIES, as MessagePack.

The body of a batch is the payloads of all its calls, then the rows that they read of the buffer that they share, each
once. The body of the replies is the replies in the order of the calls.
"""

from __future__ import annotations

import msgspec

from faasmoe.platforms.cluster.protocol.messages import read
from faasmoe.platforms.local.protocol.wire import Lost

GRID = 0.01  # seconds


class BatchCall(msgspec.Struct, frozen=True, array_like=True):
    """A call in a batch."""

    function: str
    payload: int  # bytes
    reply: int  # bytes at most
    work: float


class CallBatch(msgspec.Struct, frozen=True, array_like=True):
    """The head of a batch. The body: payloads of all calls, then those rows of the shared buffer that they read."""

    seconds: float  # until the deadline, in steps of `GRID`
    calls: list[BatchCall]
    shared: int = 0  # bytes of the buffer that the calls share
    row: int = 0  # bytes of one of its rows
    runs: list[int] = []  # first row and number of rows, of each run of rows that is sent; the others are not read


class BatchReplies(msgspec.Struct, frozen=True, array_like=True):
    """The head of the replies to a batch. The body: replies in the order of the calls."""

    lengths: list[int]  # bytes
    busy: list[float]  # seconds
    memory: list[int]  # bytes


_batch = msgspec.msgpack.Decoder(CallBatch)
_replies = msgspec.msgpack.Decoder(BatchReplies)


def read_batch(head: memoryview, body: int) -> CallBatch:
    """The head of a batch with `body` bytes of body. Raises `Lost` if it does not fit the body."""
    batch = read(_batch, head)
    if min((min(call.payload, call.reply) for call in batch.calls), default=0) < 0 or batch.seconds < 0:
        raise Lost("a batch with sizes or seconds below zero")
    rows = _rows(batch)
    if sum(call.payload for call in batch.calls) + rows != body:
        raise Lost(f"a batch whose head does not fit its body of {body} bytes")
    return batch


def _rows(batch: CallBatch) -> int:
    """Bytes of rows in the body. Raises `Lost` if they are not in order, or not all in the shared buffer."""
    end = count = 0
    if len(batch.runs) % 2 or min(batch.row, batch.shared) < 0:
        raise Lost("a batch whose rows are malformed")
    for first, rows in zip(batch.runs[::2], batch.runs[1::2], strict=True):
        if first < end or rows < 1:
            raise Lost("a batch whose rows are out of order")
        end = first + rows
        count += rows
    if end * batch.row > batch.shared:
        raise Lost(f"a batch with rows beyond its shared buffer of {batch.shared} bytes")
    return count * batch.row


def read_replies(head: memoryview, body: int, calls: int) -> BatchReplies:
    """The head of the replies to so many calls. Raises `Lost` if it does not fit them or the body."""
    replies = read(_replies, head)
    if {len(replies.lengths), len(replies.busy), len(replies.memory)} != {calls}:
        raise Lost(f"replies that are not those to {calls} calls")
    if min(replies.lengths, default=0) < 0 or sum(replies.lengths) != body:
        raise Lost(f"replies whose head does not fit their body of {body} bytes")
    return replies
