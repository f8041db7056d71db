"""Why a call failed, or a function could not be loaded: what follows the header of such a reply, as MessagePack."""

from __future__ import annotations

from typing import Self

import msgspec

from faasmoe.errors import MessageError, brief
from faasmoe.platforms.local.protocol.public_text import public
from faasmoe.util.msgpack import decode


class CallFailure(msgspec.Struct, frozen=True, array_like=True):
    """An error that a function has raised."""

    kind: str  # the error's class
    message: str

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What a client may know of `error`."""
        text = brief(error).encode(errors="backslashreplace").decode()  # it may quote what is not Unicode
        return cls(type(error).__name__, public(text))

    def encoded(self) -> bytes:
        """It, as it travels."""
        return _encode(self)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(CallFailure)


def read_failure(data: bytes) -> CallFailure:
    """What an instance has sent. What is no failure is one of the instance."""
    try:
        return decode(_decoder, data)
    except MessageError as error:
        return CallFailure(type(error).__name__, str(error))
