"""What the daemon tells the zygote beside orders: payloads of the fork server's messages, as MessagePack."""

from __future__ import annotations

import msgspec

from faasmoe.util.msgpack import decode


class ZygotePayload(msgspec.Struct, frozen=True, array_like=True):
    """Base of all payloads."""


class Preload(ZygotePayload, frozen=True):
    """What the zygote prepares: the payload of `Load`."""

    modules: tuple[str, ...]  # that functions need
    prefork: int  # workers that wait for an assignment


class PreloadFailed(ZygotePayload, frozen=True):
    """Why no instance can ever be forked: the payload of `LoadFailed`."""

    cause: str


class Duty(ZygotePayload, frozen=True, kw_only=True):
    """What an instance is to be: the payload of `Fork`. The descriptors are listener, lifeline and stats table."""

    slot: int  # of its record in the table
    handler: str  # `module:attribute`
    artifact: bytes  # a path as the file system has it, which need not be UTF-8
    keep_alive: float | None  # seconds; None: until it is drained
    concurrency: int


encode = msgspec.msgpack.Encoder().encode
_preload = msgspec.msgpack.Decoder(Preload)
_preload_failed = msgspec.msgpack.Decoder(PreloadFailed)
_duty = msgspec.msgpack.Decoder(Duty)


def read_preload(payload: bytes) -> Preload:
    """Raises `MessageError`."""
    return decode(_preload, payload)


def read_preload_failed(payload: bytes) -> PreloadFailed:
    """Raises `MessageError`."""
    return decode(_preload_failed, payload)


def read_duty(payload: bytes) -> Duty:
    """Raises `MessageError`."""
    return decode(_duty, payload)
