"""What is fuzzed: functions of one input that return, or raise what is a defect.

The errors that are documented for malformed input are caught here; whatever else comes out is found by the fuzzer, and
by `tests/unit/test_corpus.py`, which runs every input of `tests/corpus` again.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import faasmoe.model
from faasmoe.api.parsed_request import Bounds, EndpointName
from faasmoe.errors import CheckpointError, MessageError, PayloadError, RequestError
from faasmoe.experts import payload
from faasmoe.model.checkpoint.index import read_header
from faasmoe.model.tensors import map_tensor
from faasmoe.model.text.prompts import PromptEncoder
from faasmoe.platforms.local.protocol import frame, payloads, wire
from faasmoe.platforms.local.protocol import messages as local
from faasmoe.protocol import errors, messages
from faasmoe.readers import messages as readers
from faasmoe.readers.parser import RequestParser
from faasmoe.util.forkserver import messages as forks
from tests.chaos.questions import MODEL
from tests.unit.platforms.local.instance.callers import served

Target = Callable[[bytes], None]

CORPUS = Path(__file__).parents[1] / "corpus"
DEMO = Path(faasmoe.model.__file__).parent / "demo"
_BOUNDS = Bounds(MODEL, 4096, 512)
_KINDS: tuple[EndpointName, ...] = ("completions", "chat")
_MOST_MAPPED = 4  # tensors of one file


def bodies(data: bytes) -> None:
    """Bodies of HTTP requests: validation, sampling parameters, and texts to token ids."""
    for kind in _KINDS:
        with suppress(RequestError):
            asked = _parser().parse(kind, data)
            assert all(0 <= token < _BOUNDS.vocabulary for prompt in asked.prompts for token in prompt)


def envelopes(data: bytes) -> None:
    """Requests and replies between an orchestrator and a function (`experts.payload`)."""
    if not data:
        return
    shared = memoryview(bytearray(256 * (data[0] & 7))) if data[0] & 8 else None
    envelope = bytearray(data[1:])
    with suppress(PayloadError):
        request = payload.decode_request(envelope, shared)
        assert request.row.size == request.expert.size == request.weight.size
        assert sum(map(len, payload.encode_request(request))) == len(envelope)
    with suppress(PayloadError):
        reply = payload.decode_reply(envelope)
        assert (reply.sums is None) != (reply.error is None)


def control(data: bytes) -> None:
    """Messages between gateway, template, orchestrators, daemon and zygote, and frames of calls."""
    if not data:
        return
    kind, content = data[0] % len(PARSERS), data[1:]
    with suppress(MessageError, wire.Lost):
        PARSERS[kind](content)


def headers(data: bytes) -> None:
    """Safetensors files. An even first byte: the rest is a header, so much data follows; odd: the rest is the file."""
    if not data:
        return
    content = data[1:]
    if data[0] % 2 == 0:
        content = struct.pack("<Q", len(content)) + content + bytes(8 * (data[0] >> 1))
    file = _scratch()
    file.write_bytes(content)
    with suppress(CheckpointError):
        for location in list(read_header(file).values())[:_MOST_MAPPED]:
            assert map_tensor(location).shape == location.shape


TARGETS: dict[str, Target] = {
    "bodies": bodies,
    "envelopes": envelopes,
    "control": control,
    "headers": headers,
}


@cache
def _parser() -> RequestParser:
    return RequestParser(PromptEncoder.saved(DEMO), _BOUNDS)


@cache
def _scratch() -> Path:
    """A file in memory, if there is a place for it."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.TemporaryDirectory(prefix="fuzz-", dir=place)
    _kept.append(folder)
    return Path(folder.name) / "model.safetensors"


_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


class _Scripted:
    """A socket on which `data` comes in pieces of so many bytes, and then the end."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = memoryview(data)
        self._piece = piece

    def recv_into(self, buffer: memoryview) -> int:
        size = min(len(buffer), self._piece, len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


def _length(data: bytes) -> None:
    if len(data) >= wire.HEAD:
        wire.length_of(data[: wire.HEAD])


def _control(data: bytes) -> None:
    for read in (local.read_request, local.read_reply, local.read_activation):
        with suppress(wire.Lost):
            read(data)


def _received(data: bytes) -> None:
    sock: Any = _Scripted(data, 64)
    if len(data) >= wire.HEAD and wire.length_of(data[: wire.HEAD]) > len(data):
        return  # it would be allocated, and then the end found
    wire.receive(sock)


def _call(data: bytes) -> None:
    with served() as ends:
        ends.caller.sendall(data[1 : 2 * frame.BUFFER])  # the first byte once said how large pieces are
        ends.caller.shutdown(socket.SHUT_WR)
        if ends.server.next_call():
            ends.server.call()


def _reply(data: bytes) -> None:
    sock: Any = _Scripted(data[1:], 1 + data[0]) if data else _Scripted(b"", 1)
    frame.receive_reply(sock, memoryview(bytearray(frame.BUFFER)))


def _answer(data: bytes) -> None:
    answer = messages.read_answer(data)
    if isinstance(answer, (messages.Failed, messages.Refused)):
        errors.error_of(answer.error)


def _template_order(data: bytes) -> None:
    order = forks.read_order(data)
    if isinstance(order, forks.Load):
        messages.read_start(order.payload)


def _template_event(data: bytes) -> None:
    event = forks.read_event(data)
    if isinstance(event, forks.Loaded):
        messages.read_about(event.payload)
    elif isinstance(event, forks.LoadFailed):
        errors.error_of(messages.read_failure(event.payload))


def _readers_order(data: bytes) -> None:
    order = forks.read_order(data)
    if isinstance(order, forks.Load):
        readers.read_setup(order.payload)
    elif isinstance(order, forks.Fork):
        readers.read_options(order.payload)


def _readers_event(data: bytes) -> None:
    event = forks.read_event(data)
    if isinstance(event, forks.LoadFailed):
        readers.read_setup_failure(event.payload)


def _zygote_order(data: bytes) -> None:
    order = forks.read_order(data)
    if isinstance(order, forks.Load):
        payloads.read_preload(order.payload)
    elif isinstance(order, forks.Fork):
        payloads.read_duty(order.payload)


def _zygote_event(data: bytes) -> None:
    event = forks.read_event(data)
    if isinstance(event, forks.LoadFailed):
        payloads.read_preload_failed(event.payload)


def _head(data: bytes) -> None:
    if len(data) >= messages.HEADER.size:
        messages.body_length(data[: messages.HEADER.size])


PARSERS: tuple[Callable[[bytes], object], ...] = (
    messages.read_order,
    _answer,
    _template_order,
    _template_event,
    _head,
    _length,
    _received,
    _call,
    _reply,
    _readers_order,
    _readers_event,
    readers.read_job,
    readers.read_answer,
    _control,
    _zygote_order,
    _zygote_event,
)
