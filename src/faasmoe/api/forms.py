"""How the two endpoints shape their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faasmoe.api import logprobs
from faasmoe.orchestrator.request import Piece


@dataclass(frozen=True)
class Form:
    """How an endpoint names and shapes its answers."""

    prefix: str  # of ids
    object: str
    stream_object: str
    choice: Callable[[int, Piece], dict[str, Any]]  # index, all of its pieces as one
    delta: Callable[[int, Piece, bool], dict[str, Any]]  # index, a piece of it, whether it is the first


def _completion(index: int, piece: Piece, _: bool = True) -> dict[str, Any]:
    return {
        "index": index,
        "text": piece.text,
        "logprobs": logprobs.of_completion(piece.logprobs),
        "finish_reason": piece.finish_reason,
    }


def _message(index: int, piece: Piece) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": piece.text, "refusal": None},
        "logprobs": logprobs.of_chat(piece.logprobs),
        "finish_reason": piece.finish_reason,
    }


def _message_delta(index: int, piece: Piece, first: bool) -> dict[str, Any]:
    return {
        "index": index,
        "delta": {"role": "assistant", "content": piece.text} if first else {"content": piece.text},
        "logprobs": logprobs.of_chat(piece.logprobs),
        "finish_reason": piece.finish_reason,
    }


COMPLETION = Form("cmpl", "text_completion", "text_completion", _completion, _completion)
CHAT = Form("chatcmpl", "chat.completion", "chat.completion.chunk", _message, _message_delta)
