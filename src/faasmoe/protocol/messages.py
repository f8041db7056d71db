"""Messages between the gateway and orchestrators, and the payloads of those between the gateway and the template.

A message is six bytes of header, the version and the length of what follows, and then MessagePack. Requests and
pieces travel as the plain dataclasses that they are, so a new field of simple type needs no change here.
"""

from __future__ import annotations

import struct
from typing import TypeVar

import msgspec

from faasmoe.errors import FaasmoeError, MessageError, brief
from faasmoe.protocol.config import About, ServingConfig
from faasmoe.protocol.errors import SentError
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.protocol.stats import EngineStats

VERSION = 1
LARGEST = 32 << 20  # bytes of one message: prompts of several million tokens
HEADER = struct.Struct("<HI")  # version, length


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages; on the wire an array that begins with the class's name."""


class Start(Message, frozen=True):
    """Payload of the template's `Load`; that of `Loaded` is an `About`, that of `LoadFailed` a `SentError`."""

    config: ServingConfig
    platform: str  # name
    pool: str  # address of the functions that orchestrators call
    folder: str  # private to the gateway and these: artifacts, and the tokenizer for the gateway
    orchestrators: int = 1  # that share the KV cache memory
    deployed: bool = False  # another process has deployed the functions, and may have other paths


class Submit(Message, frozen=True):
    """To the orchestrator: run all of these, or none. Answered by `Accepted` or `Refused`."""

    number: int
    requests: tuple[GenerationRequest, ...]


class Cancel(Message, frozen=True):
    """To the orchestrator: drop requests. Each that runs is answered by its last piece. Unknown ids are fine."""

    ids: tuple[str, ...]


class ServedTokens(Message, frozen=True):
    """To the orchestrator: tokens that other orchestrators have served to tenants since the last such message."""

    tokens: dict[str, int]


class StatsRequest(Message, frozen=True):
    """To the orchestrator: send a `StatsReport` now."""


class Starting(Message, frozen=True):
    """To the gateway, once a second until requests are taken."""


class Ready(Message, frozen=True):
    """To the gateway: requests are taken from now on."""


class Failed(Message, frozen=True):
    """To the gateway: the orchestrator cannot start, and ends after this message."""

    error: SentError


class Accepted(Message, frozen=True):
    """To the gateway: a `Submit` has been taken; pieces may have come before this."""

    number: int


class Refused(Message, frozen=True):
    """To the gateway: none of a `Submit` runs."""

    number: int
    error: SentError


class Pieces(Message, frozen=True):
    """To the gateway: the pieces of a step, each with the id of its request."""

    pieces: tuple[tuple[str, Piece], ...]


class StatsReport(Message, frozen=True):
    """To the gateway, once a second and when asked: stats, which are a heartbeat as well."""

    stats: EngineStats
    busy: dict[str, float]  # tenant to GB-seconds of instances, since the last report (`ResourceUsage.gb_seconds`)
    served: dict[str, int]  # tenant to tokens, since the last report


_M = TypeVar("_M")

ToOrchestrator = Submit | Cancel | StatsRequest | ServedTokens
ToGateway = Starting | Ready | Failed | Accepted | Refused | Pieces | StatsReport

_encoder = msgspec.msgpack.Encoder()
_start: msgspec.msgpack.Decoder[Start] = msgspec.msgpack.Decoder(Start)
_about: msgspec.msgpack.Decoder[About] = msgspec.msgpack.Decoder(About)
_failure: msgspec.msgpack.Decoder[SentError] = msgspec.msgpack.Decoder(SentError)
_to_orchestrator: msgspec.msgpack.Decoder[ToOrchestrator] = msgspec.msgpack.Decoder(ToOrchestrator)
_to_gateway: msgspec.msgpack.Decoder[ToGateway] = msgspec.msgpack.Decoder(ToGateway)


def encode(value: Message | About | SentError) -> bytes:
    """The body alone, as payloads travel. Raises `MessageError` if a value cannot travel."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"{type(value).__name__} cannot be sent: {type(error).__name__}") from error


def pack(message: Message) -> bytes:
    """Header and body. Raises `MessageError` if a value cannot travel or it is too long."""
    body = encode(message)
    if len(body) > LARGEST:
        raise MessageError(f"{type(message).__name__} has {len(body)} bytes; at most {LARGEST} are taken")
    return HEADER.pack(VERSION, len(body)) + body


def body_length(header: bytes) -> int:
    """Length of the body after a header, in bytes. Raises `MessageError` for another version or too long a body."""
    version, length = HEADER.unpack(header)
    if version != VERSION:
        raise MessageError(f"a message of version {version}; this is version {VERSION}")
    if length > LARGEST:
        raise MessageError(f"a message of {length} bytes was announced; at most {LARGEST} are taken")
    return int(length)


def read_order(body: bytes) -> ToOrchestrator:
    """A message to the orchestrator. Raises `MessageError`."""
    return _read(_to_orchestrator, body)


def read_answer(body: bytes) -> ToGateway:
    """A message to the gateway. Raises `MessageError`."""
    return _read(_to_gateway, body)


def read_start(payload: bytes) -> Start:
    """The payload of a template's `Load`. Raises `MessageError`."""
    return _read(_start, payload)


def read_about(payload: bytes) -> About:
    """The payload of a template's `Loaded`. Raises `MessageError`."""
    return _read(_about, payload)


def read_failure(payload: bytes) -> SentError:
    """The payload of a template's `LoadFailed`. Raises `MessageError`."""
    return _read(_failure, payload)


def _read(decoder: msgspec.msgpack.Decoder[_M], body: bytes) -> _M:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, FaasmoeError, ValueError, TypeError, RecursionError) as error:
        # what the library says of a malformed message is about types and places, never about values
        cause = brief(error) if isinstance(error, msgspec.MsgspecError) else type(error).__name__
        raise MessageError(f"a malformed message: {cause}") from error
