"""Messages between the gateway and readers, and payloads of those with the readers' fork server, as MessagePack."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from faasmoe.api.parsed_request import Bounds, EndpointName, ParsedRequest
from faasmoe.errors import MessageError, RequestError
from faasmoe.util.msgpack import decode

LENGTH = struct.Struct("<I")  # bytes of a message that follows, between gateway and reader
LARGEST = 32 << 20  # bytes of one: what a body asks for is never much longer than the body


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages; on the wire an array that begins with the class's name."""


class ReaderSetup(Message, frozen=True):
    """The payload of `Load` for the readers' fork server."""

    folder: str  # of the tokenizer, as `Tokenizer.save` has written it
    bounds: Bounds
    control: bool  # users may spell control tokens


class SetupFailed(Message, frozen=True):
    """The payload of `LoadFailed`: the tokenizer cannot be used."""

    message: str


class ReaderOptions(Message, frozen=True):
    """The payload of `Fork`: options of one reader."""

    niceness: int  # more than that of the fork server


class Job(Message, frozen=True):
    """To a reader: read this body. Answered by `Done` or `Refused`."""

    kind: EndpointName
    body: bytes
    cpu_seconds: float  # that it may take; the reader is killed by the kernel when they are over


class Done(Message, frozen=True):
    """From a reader: what the body asks for. The reader that has grown ends after it, as `last` says."""

    asked: ParsedRequest[Any]
    last: bool


class Refused(Message, frozen=True):
    """From a reader: what is wrong with the body."""

    message: str
    param: str | None
    code: str | None
    last: bool

    def error(self) -> RequestError:
        """The refusal as an error."""
        return RequestError(self.message, param=self.param, code=self.code)


Answer = Done | Refused

pack = msgspec.msgpack.Encoder().encode
_setup: msgspec.msgpack.Decoder[ReaderSetup] = msgspec.msgpack.Decoder(ReaderSetup)
_setup_failure: msgspec.msgpack.Decoder[SetupFailed] = msgspec.msgpack.Decoder(SetupFailed)
_options: msgspec.msgpack.Decoder[ReaderOptions] = msgspec.msgpack.Decoder(ReaderOptions)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_job: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(Job)


def frame(message: Job | Answer) -> bytes:
    """A message as it travels between gateway and reader. Raises `MessageError` if it is too long."""
    packed = pack(message)
    if len(packed) > LARGEST:
        raise MessageError(f"{len(packed)} bytes are more than a message may have, {LARGEST}")
    return LENGTH.pack(len(packed)) + packed


def read_setup(payload: bytes) -> ReaderSetup:
    """Raises `MessageError`."""
    return decode(_setup, payload)


def read_setup_failure(payload: bytes) -> SetupFailed:
    """Raises `MessageError`."""
    return decode(_setup_failure, payload)


def read_options(payload: bytes) -> ReaderOptions:
    """Raises `MessageError`."""
    return decode(_options, payload)


def read_job(packed: bytes | bytearray) -> Job:
    """Raises `MessageError`."""
    return decode(_job, packed)


def read_answer(packed: bytes) -> Answer:
    """Raises `MessageError`."""
    return decode(_answer, packed)
