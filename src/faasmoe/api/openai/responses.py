"""How the two endpoints shape their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faasmoe.api.asked import Kind
from faasmoe.api.openai import logprobs
from faasmoe.protocol.request import Piece


@dataclass(frozen=True)
class Form:
    """How an endpoint names and shapes its answers."""

    kind: Kind
    path: str
    prefix: str  # of ids
    object: str
    stream_object: str
    scores: logprobs.Shape  # of its log-probabilities
    choice: Callable[[int, Piece, Any], dict[str, Any]]  # index, its pieces as one, all `scores`
    delta: Callable[[int, Piece, bool], dict[str, Any]]  # index, a piece of it, whether it is the first


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
    "completions",
    "/v1/completions",
    "cmpl",
    "text_completion",
    "text_completion",
    logprobs.of_completion,
    _completion,
    _completion_delta,
)
CHAT_FORM = Form(
    "chat",
    "/v1/chat/completions",
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    logprobs.of_chat,
    _message,
    _message_delta,
)
