"""Reads bodies in the caller's process, for tests of what uses readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from faasmoe.api.parsed_request import Bounds, EndpointName, ParsedRequest
from faasmoe.readers.parser import RequestParser


class Letters:
    """A tokenizer whose tokens are bytes."""

    def encode(self, text: str, most: int, field: str = "prompt") -> list[int]:
        return list(text.encode())

    def encode_chat(self, messages: Sequence[dict[str, str]], most: int) -> list[int]:
        return self.encode("".join(message["content"] for message in messages), most)

    def name(self, token: int) -> str:
        return bytes([token]).decode(errors="replace")


class InlineReader:
    """A `BodyReader` without processes, for a model of this name."""

    def __init__(self, bounds: Bounds) -> None:
        self._parser = RequestParser(Letters(), bounds)

    async def read(self, kind: EndpointName, tenant: str, body: bytes) -> ParsedRequest[Any]:
        return self._parser.parse(kind, body)
