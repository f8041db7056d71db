"""MessagePack from other processes, which may be malformed."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from faasmoe.errors import MessageError

_M = TypeVar("_M")


def decode(decoder: msgspec.msgpack.Decoder[_M], data: bytes | bytearray | memoryview) -> _M:
    """The message that `data` is. Raises `MessageError`."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError) as error:  # not UTF-8 is a ValueError
        raise MessageError(f"a malformed message of {len(data)} bytes: {type(error).__name__}") from error
