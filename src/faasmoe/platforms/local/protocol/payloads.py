"""Payloads of the messages between daemon and zygote (`util.forkserver.messages`), as MessagePack."""

from __future__ import annotations

import msgspec

from faasmoe.util.msgpack import decode


class ZygotePayload(msgspec.Struct, frozen=True, array_like=True):
    """Base of all payloads."""


class Preload(ZygotePayload, frozen=True):
    """The payload of `Load`: how the zygote prepares itself."""

    modules: tuple[str, ...]  # that functions need
    prefork: int  # workers that wait for an assignment


class PreloadFailed(ZygotePayload, frozen=True):
    """The payload of `LoadFailed`: a module cannot be imported."""

    cause: str


class Duty(ZygotePayload, frozen=True, kw_only=True):
    """The payload of `Fork`: the function of an instance. Descriptors: listener, lifeline, stats table."""

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
