"""Envelopes between orchestrator and function, version 2. Little-endian, no pickle, every length checked.

Request: a header, then T rows, then S slots: row int32[S], expert int32[S], weight float32[S]. The rows are either
their values, [T, H] in `dtype`, or, if the platform hands functions a buffer that they share, int32[T]: which rows of
that buffer, [*, H] in `dtype`.
Reply: a header, then either sums float32 [T, H] or a UTF-8 error, "Kind: message".
All sections start at multiples of 4 bytes, because headers and sections are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faasmoe.errors import PayloadError
from faasmoe.experts.dtypes import BFLOAT16, BY_NAME

VERSION = 2
_REQUEST = struct.Struct("<4sHBBIIII")  # magic, version, dtype, whether rows are shared, layer, T, H, S
_REPLY = struct.Struct("<4sHBBIIQQQ")  # magic, version, status, cold, T, H, queue, load, compute in ns
_REQUEST_MAGIC, _REPLY_MAGIC = b"FMoQ", b"FMoA"
DTYPES = ("F32", "BF16")  # of rows; an envelope has the place of one
_OK, _ERROR = 0, 1
_SLOT_BYTES = 12

Buffer = bytes | bytearray | memoryview
Writable = bytearray | memoryview


# These three are not frozen, because that makes them three times as slow to make: one of each for every call.
@dataclass(slots=True, kw_only=True)
class Request:
    """Tokens for the experts of one block. Slot s sends row `row[s]` to expert `expert[s]` of the block."""

    layer: int
    rows: NDArray[Any]  # [T, H] float32 or bits of bfloat16; all rows of the shared buffer if `picked` is given
    row: NDArray[np.int32]  # [S], below T
    expert: NDArray[np.int32]  # [S], index within the block
    weight: NDArray[np.float32]  # [S], the router's weight
    picked: NDArray[np.int32] | None = None  # [T]: which of `rows` are meant

    @property
    def dtype(self) -> str:
        """Of the rows: `F32` or `BF16`."""
        return "BF16" if self.rows.dtype == BFLOAT16 else "F32"

    @property
    def tokens(self) -> int:
        """T, the number of tokens."""
        return len(self.rows if self.picked is None else self.picked)


@dataclass(slots=True)
class Timings:
    """Nanoseconds. `load` is zero except at a cold start."""

    queue: int = 0
    load: int = 0
    compute: int = 0


@dataclass(slots=True)
class Reply:
    """`sums` [T, H] float32: each row's weighted sum over this block's experts. Or an error."""

    sums: NDArray[np.float32] | None
    timings: Timings = field(default_factory=Timings)
    cold: bool = False
    error: str | None = None  # "Kind: message"


def encode_slots(
    layer: int, rows: Buffer, dtype: str, tokens: int, width: int, slots: Buffer, shared: bool
) -> list[Buffer]:
    """The parts of a request's envelope, for a gathering write.

    `rows` are the bytes of `[tokens, width]` in `dtype` (`F32`, `BF16`), or if they are `shared` of int32 `[tokens]`;
    `slots` those of row, expert and weight, as the envelope has them.
    """
    kind = DTYPES.index(dtype)
    count = len(slots) // _SLOT_BYTES
    header = _REQUEST.pack(_REQUEST_MAGIC, VERSION, kind, shared, layer, tokens, width, count)
    return [header, rows, b"\0" * (-len(rows) % 4), slots]


def encode_request(request: Request) -> list[Buffer]:
    """As `encode_slots`. With `picked`, `rows` must travel as the shared buffer."""
    shared, width = request.picked is not None, request.rows.shape[1]
    slots = b"".join(each.tobytes() for each in (request.row, request.expert, request.weight))
    rows = (request.rows if request.picked is None else request.picked).tobytes()
    return encode_slots(request.layer, rows, request.dtype, request.tokens, width, slots, shared)


def decode_request(data: Writable, shared: memoryview | None = None) -> Request:
    """Raises `PayloadError` on anything but a whole envelope with every index in range.

    The arrays share the memory of `data` and `shared`.
    """
    if len(data) < _REQUEST.size:
        raise PayloadError(f"a request of {len(data)} bytes is shorter than its header of {_REQUEST.size}")
    magic, version, dtype, uses_shared, layer, tokens, width, slots = _REQUEST.unpack_from(data)
    _check_kind(magic, _REQUEST_MAGIC, version)
    if dtype >= len(DTYPES) or uses_shared > 1:
        raise PayloadError(f"the header has dtype {dtype} and shared flag {uses_shared}, of which one is unknown")
    name = DTYPES[dtype]
    kind = BY_NAME[name]
    row_bytes = 4 * tokens if uses_shared else tokens * width * kind.itemsize
    row_bytes += -row_bytes % 4
    expected = _REQUEST.size + row_bytes + _SLOT_BYTES * slots
    if len(data) != expected:
        raise PayloadError(f"{len(data)} bytes, but the header announces {expected}")
    picked = None
    if uses_shared:
        rows = _shared_rows(shared, name, width)
        picked = _indices("the request", data, tokens, _REQUEST.size, len(rows))
    else:
        rows = np.frombuffer(data, kind, tokens * width, _REQUEST.size).reshape(tokens, width)
    at = _REQUEST.size + row_bytes
    row = _indices("a slot", data, slots, at, tokens)
    expert = np.frombuffer(data, np.int32, slots, at + 4 * slots)
    weight = np.frombuffer(data, np.float32, slots, at + 8 * slots)
    return Request(layer=layer, rows=rows, row=row, expert=expert, weight=weight, picked=picked)


def _shared_rows(shared: memoryview | None, name: str, width: int) -> NDArray[Any]:
    if shared is None:
        raise PayloadError("the request's rows are shared, but no shared buffer came with it")
    dtype = BY_NAME[name]
    if width == 0 or len(shared) % (width * dtype.itemsize):
        raise PayloadError(f"a shared buffer of {len(shared)} bytes is no matrix of {width} columns in {name}")
    return np.frombuffer(shared, dtype).reshape(-1, width)


def _indices(what: str, data: Writable, count: int, offset: int, below: int) -> NDArray[np.int32]:
    # a list of a few is looked through sooner than an array
    values = memoryview(data)[offset : offset + 4 * count].cast("i").tolist()
    if values and not 0 <= min(values) <= max(values) < below:
        raise PayloadError(f"{what} names a row outside 0..{below - 1}")
    return np.frombuffer(data, np.int32, count, offset)


def reply_bytes(tokens: int, width: int) -> int:
    """Size of a reply's envelope that carries sums `[tokens, width]`."""
    return _REPLY.size + 4 * tokens * width


def reply_sums(buffer: Writable, tokens: int, width: int) -> NDArray[np.float32]:
    """Zeros `[tokens, width]` in the place of `buffer` where a reply has its sums."""
    sums = np.frombuffer(buffer, np.float32, tokens * width, _REPLY.size).reshape(tokens, width)
    sums.fill(0)
    return sums


def seal_reply(buffer: Writable, tokens: int, width: int, timings: Timings, cold: bool) -> None:
    """Write the header of a reply whose sums are in `buffer` already."""
    header = (_REPLY_MAGIC, VERSION, _OK, cold, tokens, width, timings.queue, timings.load, timings.compute)
    _REPLY.pack_into(buffer, 0, *header)


def encode_reply(reply: Reply) -> list[Buffer]:
    """The parts of the envelope, for a gathering write."""
    t = reply.timings
    if reply.sums is None:
        text = (reply.error or "Error: unknown").encode()
        header = (_REPLY_MAGIC, VERSION, _ERROR, reply.cold, 0, len(text), t.queue, t.load, t.compute)
        return [_REPLY.pack(*header), text]
    tokens, width = reply.sums.shape
    header = (_REPLY_MAGIC, VERSION, _OK, reply.cold, tokens, width, t.queue, t.load, t.compute)
    return [_REPLY.pack(*header), reply.sums.tobytes()]


def decode_reply(data: Writable) -> Reply:
    """Raises `PayloadError` on anything but a whole envelope. `sums` shares the memory of `data`."""
    if len(data) < _REPLY.size:
        raise PayloadError(f"a reply of {len(data)} bytes is shorter than its header of {_REPLY.size}")
    magic, version, status, cold, tokens, width, queue, load, compute = _REPLY.unpack_from(data)
    _check_kind(magic, _REPLY_MAGIC, version)
    if status not in (_OK, _ERROR) or cold > 1:
        raise PayloadError(f"unknown status {status} or cold flag {cold}")
    expected = _REPLY.size + (width if status == _ERROR else 4 * tokens * width)
    if len(data) != expected:
        raise PayloadError(f"{len(data)} bytes, but the header announces {expected}")
    timings = Timings(queue, load, compute)
    if status == _ERROR:
        text = bytes(data[_REPLY.size :]).decode(errors="replace")
        return Reply(None, timings, bool(cold), text)
    sums = np.frombuffer(data, np.float32, tokens * width, _REPLY.size).reshape(tokens, width)
    return Reply(sums, timings, bool(cold))


def _check_kind(magic: bytes, wanted: bytes, version: int) -> None:
    if magic != wanted:
        raise PayloadError(f"starts with {magic!r}, not {wanted!r}")
    if version != VERSION:
        raise PayloadError(f"version {version}, this code speaks {VERSION}")
