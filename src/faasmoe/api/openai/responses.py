"""The response objects of both endpoints: what a piece adds to a choice, and what a choice is in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from faasmoe.api.chat.deltas import CallStart, Content, Delta, Reasoning
from faasmoe.api.chat.reply import ReplyFormat, ReplyParts, ReplyReader
from faasmoe.api.openai import logprobs
from faasmoe.api.parsed_request import EndpointName
from faasmoe.protocol.request import Piece

StreamUsage = Literal["none", "last", "each"]
"""Chunks of a stream that have the usage: a last one without choices, or each one as well."""


@dataclass(frozen=True, slots=True)
class ResponseFields:
    """Fields of a body that change nothing but its response, and how to read the text of chats."""

    stream_usage: StreamUsage
    service_tier: str | None  # repeated in responses; None if the client did not name one
    reply: ReplyFormat = field(default_factory=ReplyFormat)


class ResponseChoice(Protocol):
    """One choice of a response, whole or streamed."""

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of reasoning so far; None if responses have none."""

    def deltas(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        """What a stream's chunks have for a piece of choice `index`, each for a chunk of its own."""

    def add(self, piece: Piece) -> None:
        """Collect a piece of a whole response."""

    def value(self, index: int) -> dict[str, Any]:
        """The whole choice, after all pieces."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """The names and the shape of an endpoint's responses."""

    name: EndpointName
    path: str
    prefix: str  # of ids
    object: str
    stream_object: str
    choice: Callable[[ResponseFields], ResponseChoice]


class CompletionChoice:
    """A choice that is text."""

    reasoning_tokens: int | None = None

    def __init__(self, _: ResponseFields) -> None:
        self._texts: list[str] = []
        self._scores = logprobs.Collected(logprobs.of_completion)
        self._reason: str | None = None

    def deltas(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        """One chunk."""
        return [_completion(index, piece.text, logprobs.of_completion(piece.logprobs), piece.finish_reason)]

    def add(self, piece: Piece) -> None:
        """See `ResponseChoice`."""
        self._texts.append(piece.text)
        self._scores.add(piece.logprobs)
        self._reason = piece.finish_reason

    def value(self, index: int) -> dict[str, Any]:
        """See `ResponseChoice`."""
        return _completion(index, "".join(self._texts), self._scores.value(), self._reason)


def _completion(index: int, text: str, scores: Any, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": scores, "finish_reason": reason}


class ChatChoice:
    """A choice that is an assistant's message: content, reasoning, and calls of tools."""

    def __init__(self, fields: ResponseFields) -> None:
        self._reply = ReplyReader(fields.reply)
        self._thinks = bool(fields.reply.thinking)
        self._collected = ReplyParts()
        self._scores = logprobs.Collected(logprobs.of_chat)
        self._reason: str | None = None
        self._begun = False

    @property
    def reasoning_tokens(self) -> int | None:
        """See `ResponseChoice`."""
        return self._reply.reasoning_tokens if self._thinks else None

    def deltas(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        """A chunk for each part; one without a part if there is none, but something else to tell."""
        parts = [_delta(delta) for delta in self._reply.piece(piece)]
        if not parts and (piece.last or piece.logprobs or not self._begun):
            parts = [{} if self._reply.called else {"content": ""}]
        if parts and not self._begun:
            self._begun = True
            parts[0] = {"role": "assistant", **parts[0]}
        last = len(parts) - 1
        return [
            {
                "index": index,
                "delta": part,
                "logprobs": None if number else logprobs.of_chat(piece.logprobs),
                "finish_reason": self._reply.finish_reason(piece) if number == last else None,
            }
            for number, part in enumerate(parts)
        ]

    def add(self, piece: Piece) -> None:
        """See `ResponseChoice`."""
        self._collected.add(self._reply.piece(piece))
        self._scores.add(piece.logprobs)
        self._reason = self._reply.finish_reason(piece)

    def value(self, index: int) -> dict[str, Any]:
        """See `ResponseChoice`."""
        its = self._collected
        content = None if its.calls and not its.content else its.content
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._thinks:
            message |= {"reasoning_content": its.reasoning or None, "reasoning": its.reasoning or None}
        if its.calls:
            message["tool_calls"] = [_call(call["id"], call["name"], call["arguments"]) for call in its.calls]
        return {
            "index": index,
            "message": message,
            "logprobs": self._scores.value(),
            "finish_reason": self._reason,
        }


def _call(name_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": name_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _delta(delta: Delta) -> dict[str, Any]:
    if isinstance(delta, Content):
        return {"content": delta.text}
    if isinstance(delta, Reasoning):
        return {"reasoning_content": delta.text, "reasoning": delta.text}
    if isinstance(delta, CallStart):
        return {"tool_calls": [{"index": delta.index, **_call(delta.id, delta.name, "")}]}
    return {"tool_calls": [{"index": delta.index, "function": {"arguments": delta.text}}]}


COMPLETION_FORM = Form(
    name="completions",
    path="/v1/completions",
    prefix="cmpl",
    object="text_completion",
    stream_object="text_completion",
    choice=CompletionChoice,
)
CHAT_FORM = Form(
    name="chat",
    path="/v1/chat/completions",
    prefix="chatcmpl",
    object="chat.completion",
    stream_object="chat.completion.chunk",
    choice=ChatChoice,
)
