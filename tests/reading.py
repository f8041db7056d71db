"""Reads bodies in the caller's process, for tests of what uses readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from faasmoe.api.parsed_request import Bounds, EndpointName, ParsedRequest
from faasmoe.readers.parser import RequestParser


class Letters:
    """A tokenizer whose tokens are bytes."""

    def encode(self, text: str, most: int, field: str = "prompt") -> list[int]:
        return list(text.encode())

    template = ""
    options: frozenset[str] = frozenset()

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], most: int, tools: Any = (), options: Any = None
    ) -> list[int]:
        return self.encode("".join(message["content"] for message in messages), most)

    def folds(self, messages: Any, tools: Any, options: Any) -> bool:
        return True

    def plain(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def text(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    def token(self, text: str) -> int | None:
        return None

    def is_special(self, text: str) -> bool:
        return False

    def name(self, token: int) -> str:
        return bytes([token]).decode(errors="replace")


class InlineReader:
    """A `BodyReader` without processes, for a model of this name."""

    def __init__(self, bounds: Bounds) -> None:
        self._parser = RequestParser(Letters(), bounds)

    async def read(self, kind: EndpointName, tenant: str, body: bytes) -> ParsedRequest[Any]:
        return self._parser.parse(kind, body)
