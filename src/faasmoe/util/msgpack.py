"""MessagePack from other processes, which may be malformed, and paths in it."""

from __future__ import annotations

from pathlib import Path
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


def text_of_path(value: object) -> str:
    """`enc_hook` of messages that have paths."""
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def path_of_text(kind: type, value: object) -> Path:
    """`dec_hook` of messages that have paths."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError("not a path")
