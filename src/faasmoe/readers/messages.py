"""What the gateway, readers and the nursery that they are forked from say to each other, as MessagePack."""

from __future__ import annotations

import struct
from typing import TypeVar

import msgspec

from faasmoe.api.asked import Asked, Bounds, Kind
from faasmoe.errors import MessageError, RequestError

LENGTH = struct.Struct("<I")  # bytes of a message that follows, between gateway and reader
LARGEST = 32 << 20  # bytes of one: what a body asks for is never much longer than the body
LARGEST_PACKET = 64 << 10  # bytes of a message to or from the nursery, which travel as packets


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages; on the wire an array that begins with the class's name."""


class Load(Message, frozen=True):
    """To the nursery, once and first. Answered by `Loaded` or `Failed`."""

    folder: str  # of the tokenizer, as `Tokenizer.save` has written it
    bounds: Bounds
    control: bool  # users may spell control tokens


class Loaded(Message, frozen=True):
    """From the nursery: readers can be forked."""


class Failed(Message, frozen=True):
    """From the nursery: the tokenizer cannot be used."""

    message: str


class Fork(Message, frozen=True):
    """To the nursery, with a descriptor: start a reader that speaks through it. Answered by `Forked` or `Ended`."""

    number: int
    niceness: int


class Kill(Message, frozen=True):
    """To the nursery: end a reader. Unknown ones are fine."""

    number: int


class Forked(Message, frozen=True):
    """From the nursery: the process id of a reader."""

    number: int
    pid: int


class Ended(Message, frozen=True):
    """From the nursery: a reader has ended with this exit status, or minus the signal that killed it."""

    number: int
    status: int


class Job(Message, frozen=True):
    """To a reader: read this body. Answered by `Done` or `Refused`."""

    kind: Kind
    body: bytes
    cpu_seconds: float  # that it may take; the reader is killed by the kernel when they are over


class Done(Message, frozen=True):
    """From a reader: what the body asks for. The reader that has grown ends after it, as `last` says."""

    asked: Asked
    last: bool


class Refused(Message, frozen=True):
    """From a reader: what is wrong with the body."""

    message: str
    param: str | None
    code: str | None
    last: bool

    def error(self) -> RequestError:
        """It, to be raised."""
        return RequestError(self.message, param=self.param, code=self.code)


ToNursery = Load | Fork | Kill
FromNursery = Loaded | Failed | Forked | Ended
Answer = Done | Refused
M = TypeVar("M")

pack = msgspec.msgpack.Encoder().encode
_to_nursery: msgspec.msgpack.Decoder[ToNursery] = msgspec.msgpack.Decoder(ToNursery)
_from_nursery: msgspec.msgpack.Decoder[FromNursery] = msgspec.msgpack.Decoder(FromNursery)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_job: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(Job)


def frame(message: Job | Answer) -> bytes:
    """A message as it travels between gateway and reader. Raises `MessageError` if it is too long."""
    packed = pack(message)
    if len(packed) > LARGEST:
        raise MessageError(f"{len(packed)} bytes are more than a message may have, {LARGEST}")
    return LENGTH.pack(len(packed)) + packed


def read_order(packet: bytes) -> ToNursery:
    """Raises `MessageError`."""
    return _read(_to_nursery, packet)


def read_event(packet: bytes) -> FromNursery:
    """Raises `MessageError`."""
    return _read(_from_nursery, packet)


def read_job(packed: bytes | bytearray) -> Job:
    """Raises `MessageError`."""
    return _read(_job, packed)


def read_answer(packed: bytes) -> Answer:
    """Raises `MessageError`."""
    return _read(_answer, packed)


def _read(decoder: msgspec.msgpack.Decoder[M], packed: bytes | bytearray) -> M:
    try:
        return decoder.decode(packed)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError) as error:  # not UTF-8 is a ValueError
        raise MessageError(f"a message that cannot be read: {type(error).__name__}") from error
