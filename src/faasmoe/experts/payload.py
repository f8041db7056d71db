"""Envelopes between orchestrator and function, version 1. Little-endian, no pickle, every length checked.

Request: a header, then `rows` [T, H] in `dtype`, then S slots: row int32[S], expert int32[S], weight float32[S].
Reply: a header, then either sums float32 [T, H] or a UTF-8 error, "Kind: message".
All sections start at multiples of 4 bytes, because headers and sections are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import torch
from torch import Tensor

from faasmoe.errors import PayloadError
from faasmoe.experts.dtypes import BY_NAME, NAME_OF

VERSION = 1
_REQUEST = struct.Struct("<4sHHIIII")  # magic, version, dtype, layer, T, H, S
_REPLY = struct.Struct("<4sHBBIIQQQ")  # magic, version, status, cold, T, H, queue, load, compute in ns
_REQUEST_MAGIC, _REPLY_MAGIC = b"FMoQ", b"FMoA"
_DTYPES = ("F32", "BF16")
_OK, _ERROR = 0, 1

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Request:
    """Tokens for the experts of one block. Slot s sends row `row[s]` to expert `expert[s]` of the block."""

    layer: int
    rows: Tensor  # [T, H] float32 or bfloat16
    row: Tensor  # [S] int32
    expert: Tensor  # [S] int32, index within the block
    weight: Tensor  # [S] float32, the router's weight


@dataclass(frozen=True, slots=True)
class Timings:
    """Nanoseconds. `load` is zero except at a cold start."""

    queue: int = 0
    load: int = 0
    compute: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """`sums` [T, H] float32: each row's weighted sum over this block's experts. Or an error."""

    sums: Tensor | None
    timings: Timings = field(default_factory=Timings)
    cold: bool = False
    error: str | None = None  # "Kind: message"


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, not copied."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    return flat.numpy().data


def encode_request(request: Request) -> list[Buffer]:
    """The parts of the envelope, for a gathering write."""
    tokens, width = request.rows.shape
    dtype = _DTYPES.index(NAME_OF[request.rows.dtype])
    header = _REQUEST.pack(_REQUEST_MAGIC, VERSION, dtype, request.layer, tokens, width, request.row.numel())
    padding = b"\0" * (-request.rows.nbytes % 4)
    slots = [raw(request.row), raw(request.expert), raw(request.weight)]
    return [header, raw(request.rows), padding, *slots]


def decode_request(data: bytearray) -> Request:
    """Raises `PayloadError` on anything but a whole envelope with every index in range.

    The tensors share the memory of `data`.
    """
    if len(data) < _REQUEST.size:
        raise PayloadError(f"a request of {len(data)} bytes is shorter than its header of {_REQUEST.size}")
    magic, version, dtype, layer, tokens, width, slots = _REQUEST.unpack_from(data)
    _check_kind(magic, _REQUEST_MAGIC, version)
    if dtype >= len(_DTYPES):
        raise PayloadError(f"unknown dtype {dtype}")
    row_bytes = tokens * width * BY_NAME[_DTYPES[dtype]].itemsize
    row_bytes += -row_bytes % 4
    expected = _REQUEST.size + row_bytes + 12 * slots
    if len(data) != expected:
        raise PayloadError(f"{len(data)} bytes, but the header announces {expected}")
    slots_at = _REQUEST.size + row_bytes
    rows = _view(data, BY_NAME[_DTYPES[dtype]], tokens * width, _REQUEST.size).view(tokens, width)
    row = _view(data, torch.int32, slots, slots_at)
    if slots and not 0 <= int(row.min()) <= int(row.max()) < tokens:
        raise PayloadError(f"a slot names a row outside 0..{tokens - 1}")
    expert = _view(data, torch.int32, slots, slots_at + 4 * slots)
    return Request(layer, rows, row, expert, _view(data, torch.float32, slots, slots_at + 8 * slots))


def encode_reply(reply: Reply) -> list[Buffer]:
    """The parts of the envelope, for a gathering write."""
    t = reply.timings
    if reply.sums is None:
        text = (reply.error or "Error: unknown").encode()
        header = (_REPLY_MAGIC, VERSION, _ERROR, reply.cold, 0, len(text), t.queue, t.load, t.compute)
        return [_REPLY.pack(*header), text]
    tokens, width = reply.sums.shape
    header = (_REPLY_MAGIC, VERSION, _OK, reply.cold, tokens, width, t.queue, t.load, t.compute)
    return [_REPLY.pack(*header), raw(reply.sums)]


def decode_reply(data: bytearray) -> Reply:
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
    sums = _view(data, torch.float32, tokens * width, _REPLY.size).view(tokens, width)
    return Reply(sums, timings, bool(cold))


def _check_kind(magic: bytes, wanted: bytes, version: int) -> None:
    if magic != wanted:
        raise PayloadError(f"starts with {magic!r}, not {wanted!r}")
    if version != VERSION:
        raise PayloadError(f"version {version}, this code speaks {VERSION}")


def _view(data: bytearray, dtype: torch.dtype, count: int, offset: int) -> Tensor:
    if count == 0:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=offset)
