"""Encodes prompts and messages as token ids that the model has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from faasmoe.errors import RequestError


class Encoder(Protocol):
    """A tokenizer, as far as prompts need one."""

    def encode(self, text: str, most: int, field: str = "prompt") -> list[int]:
        """Token ids of `text`. Raises `RequestError` naming `field` if they are more than `most`."""

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        most: int,
        tools: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of a conversation that the assistant is to continue. Raises `RequestError` as `encode` does."""

    @property
    def template(self) -> str:
        """The model's chat template; empty if it has none."""

    @property
    def options(self) -> frozenset[str]:
        """Names of variables that the chat template reads beside messages and tools."""

    def folds(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> bool:
        """Whether the prompt of a conversation has its tools and calls as text in Hermes' form."""

    def plain(self, text: str) -> tuple[int, ...]:
        """Token ids of `text` alone, in which signs are control tokens where the model has such."""

    def text(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, special ones included."""

    def token(self, text: str) -> int | None:
        """The one added token that stands for `text`; None if there is none."""

    def is_special(self, text: str) -> bool:
        """Whether a token stands for `text` that responses do not show by themselves."""

    def name(self, token: int) -> str:
        """The text of a token, for error messages."""


class PromptReader:
    """Encodes prompts, and refuses impossible ones.

    The model's token ids are 0 to `vocabulary` - 1, and `most` tokens fit its context.
    """

    def __init__(self, encoder: Encoder, vocabulary: int, most: int) -> None:
        self.encoder = encoder
        self._vocabulary = vocabulary
        self._most = most

    def prompts(self, prompt: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
        """Each prompt of a completion request. Raises `RequestError`."""
        if isinstance(prompt, str):
            prompt = [prompt]
        if not prompt:
            raise RequestError("the prompt is empty", param="prompt")
        if isinstance(prompt[0], int):
            prompt = [prompt]
        return [self._text(p) if isinstance(p, str) else self.check(p, "prompt") for p in prompt]

    def conversation(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The prompt of a chat, each message with `role` and `content`. Raises `RequestError`."""
        ids = self.encoder.encode_chat(messages, self._most, tools, options)
        return self._known(ids, "messages", self.encoder.name)

    def check(self, ids: list[int], field: str) -> list[int]:
        """Return `ids` unchanged. Raises `RequestError` naming `field` if the model has no such tokens."""
        return self._known(ids, field, str)

    def _text(self, text: str) -> list[int]:
        return self._known(self.encoder.encode(text, self._most), "prompt", self.encoder.name)

    def _known(self, ids: list[int], field: str, name: Callable[[int], str]) -> list[int]:
        wrong = next((i for i in ids if not 0 <= i < self._vocabulary), None)
        if wrong is not None:
            what = str(wrong) if (called := name(wrong)) == str(wrong) else f"{called!r}, which is {wrong}"
            raise RequestError(f"{field} has token {what}: ids are 0 to {self._vocabulary - 1}", param=field)
        return ids
