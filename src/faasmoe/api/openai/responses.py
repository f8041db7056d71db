"""The response objects of both endpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from faasmoe.api.openai import logprobs
from faasmoe.api.parsed_request import EndpointName
from faasmoe.protocol.request import Piece

StreamUsage = Literal["none", "last", "each"]
"""Chunks of a stream that have the usage: a last one without choices, or each one as well."""


@dataclass(frozen=True, slots=True)
class ResponseFields:
    """Fields of a body that change nothing but its response."""

    stream_usage: StreamUsage
    service_tier: str | None  # repeated in responses; None if the client did not name one


@dataclass(frozen=True, kw_only=True)
class Form:
    """The names and the shape of an endpoint's responses."""

    name: EndpointName
    path: str
    prefix: str  # of ids
    object: str
    stream_object: str
    scores: logprobs.Shape  # of its log-probabilities
    choice: Callable[[int, Piece, Any], dict[str, Any]]  # of the index, its joined pieces, all its `scores`
    delta: Callable[[int, Piece, bool], dict[str, Any]]  # of the index, a piece, and whether it is the first


def _completion(index: int, piece: Piece, scores: Any) -> dict[str, Any]:
    return {"index": index, "text": piece.text, "logprobs": scores, "finish_reason": piece.finish_reason}


def _completion_delta(index: int, piece: Piece, _: bool) -> dict[str, Any]:
    return _completion(index, piece, logprobs.of_completion(piece.logprobs))


def _message(index: int, piece: Piece, scores: Any) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": piece.text, "refusal": None},
        "logprobs": scores,
        "finish_reason": piece.finish_reason,
    }


def _message_delta(index: int, piece: Piece, first: bool) -> dict[str, Any]:
    return {
        "index": index,
        "delta": {"role": "assistant", "content": piece.text} if first else {"content": piece.text},
        "logprobs": logprobs.of_chat(piece.logprobs),
        "finish_reason": piece.finish_reason,
    }


COMPLETION_FORM = Form(
    name="completions",
    path="/v1/completions",
    prefix="cmpl",
    object="text_completion",
    stream_object="text_completion",
    scores=logprobs.of_completion,
    choice=_completion,
    delta=_completion_delta,
)
CHAT_FORM = Form(
    name="chat",
    path="/v1/chat/completions",
    prefix="chatcmpl",
    object="chat.completion",
    stream_object="chat.completion.chunk",
    scores=logprobs.of_chat,
    choice=_message,
    delta=_message_delta,
)
