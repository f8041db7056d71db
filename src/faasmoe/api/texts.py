"""From the prompts and messages of a body to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from faasmoe.api.schema import Message
from faasmoe.errors import RequestError


class Encoder(Protocol):
    """The part of a tokenizer that the gateway needs."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`."""

    def encode_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of a conversation that the assistant is to continue."""


class Texts:
    """Encodes what clients send, and refuses what no prompt can be."""

    def __init__(self, encoder: Encoder, vocabulary: int) -> None:
        self._encoder = encoder
        self._vocabulary = vocabulary

    def prompts(self, prompt: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
        """Each prompt of a completion request. Raises `RequestError`."""
        if isinstance(prompt, str):
            return [self._encoder.encode(prompt)]
        if not prompt:
            raise RequestError("the prompt is empty", param="prompt")
        if isinstance(prompt[0], int):
            prompt = [prompt]
        return [self._encoder.encode(p) if isinstance(p, str) else self.check(p, "prompt") for p in prompt]

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """The prompt of a chat request. Raises `RequestError`."""
        return self._encoder.encode_chat([message.plain() for message in messages])

    def check(self, ids: list[int], field: str) -> list[int]:
        """`ids` as they are. Raises `RequestError` naming `field` if the model has no such tokens."""
        wrong = next((i for i in ids if not 0 <= i < self._vocabulary), None)
        if wrong is not None:
            raise RequestError(f"{field} has token {wrong}: ids are 0 to {self._vocabulary - 1}", param=field)
        return ids
