"""Log-probabilities as OpenAI's API writes them, for completions and for chats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from faasmoe.protocol.request import ScoredToken, TokenLogprob


def of_completion(scores: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """`choices[].logprobs` of a completion: four lists, one entry a token.

    The chosen token is always among the alternatives. None without `scores`: the body wants none.
    """
    if not scores:
        return None
    return {
        "tokens": [_name(score.chosen) for score in scores],
        "token_logprobs": [score.chosen.logprob for score in scores],
        "top_logprobs": [_by_name(score) for score in scores],
        "text_offset": [score.offset for score in scores],
    }


def of_chat(scores: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """`choices[].logprobs` of a chat completion. None without `scores`: the body wants none."""
    if not scores:
        return None
    content = [
        {**_entry(score.chosen), "top_logprobs": [_entry(candidate) for candidate in score.top]}
        for score in scores
    ]
    return {"content": content, "refusal": None}


Shape = Callable[[Sequence[TokenLogprob]], dict[str, Any] | None]


class Collected:
    """All log-probabilities of a response, encoded piece by piece: to encode all of them at once takes seconds."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._lists: dict[str, list[bytes]] = {}
        self._others: dict[str, Any] = {}

    def add(self, scores: Sequence[TokenLogprob]) -> None:
        """Add the scores of the next tokens."""
        for name, value in (self._shape(scores) or {}).items():
            if isinstance(value, list):
                self._lists.setdefault(name, []).append(msgspec.json.encode(value)[1:-1])
            else:
                self._others[name] = value

    def value(self) -> dict[str, Any] | None:
        """The whole value, for msgspec to encode; None if there are no scores."""
        written = {name: msgspec.Raw(b"[" + b",".join(parts) + b"]") for name, parts in self._lists.items()}
        return {**written, **self._others} or None


def _name(candidate: ScoredToken) -> str:
    """The token's text. Bytes that are not UTF-8 are spelled out, so that tokens with one name have one text."""
    try:
        return candidate.data.decode()
    except UnicodeDecodeError:
        return f"bytes:{candidate.data.decode(errors='backslashreplace')}"


def _by_name(score: TokenLogprob) -> dict[str, float | None] | None:
    if score.chosen.logprob is None:
        return None
    names: dict[str, float | None] = {}
    for candidate in (score.chosen, *score.top):  # of two with one name the first is meant
        names.setdefault(_name(candidate), candidate.logprob)
    return names


def _entry(candidate: ScoredToken) -> dict[str, Any]:
    return {
        "token": candidate.data.decode(errors="backslashreplace"),
        "logprob": candidate.logprob,
        "bytes": list(candidate.data),
    }
