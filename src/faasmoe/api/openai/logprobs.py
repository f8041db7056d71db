"""Log-probabilities as OpenAI's API writes them, for completions and for chats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from faasmoe.protocol.request import ScoredToken, TokenLogprob


def of_completion(scores: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """`choices[].logprobs` of a completion: four lists, one entry a token.

    The chosen token is always among the alternatives. None without `scores`: they were not asked for.
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
    """`choices[].logprobs` of a chat completion. None without `scores`: they were not asked for."""
    if not scores:
        return None
    content = [
        {**_entry(score.chosen), "top_logprobs": [_entry(candidate) for candidate in score.top]}
        for score in scores
    ]
    return {"content": content, "refusal": None}


Shape = Callable[[Sequence[TokenLogprob]], dict[str, Any] | None]


class Collected:
    """What `shape` makes of all tokens of an answer, written as they come: to write all of it at once takes seconds."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._lists: dict[str, list[bytes]] = {}
        self._others: dict[str, Any] = {}

    def add(self, scores: Sequence[TokenLogprob]) -> None:
        """Of tokens that follow the ones before."""
        for name, value in (self._shape(scores) or {}).items():
            if isinstance(value, list):
                self._lists.setdefault(name, []).append(msgspec.json.encode(value)[1:-1])
            else:
                self._others[name] = value

    def value(self) -> dict[str, Any] | None:
        """All of it, for msgspec to write. None if there was nothing."""
        written = {name: msgspec.Raw(b"[" + b",".join(parts) + b"]") for name, parts in self._lists.items()}
        return {**written, **self._others} or None


def _name(candidate: ScoredToken) -> str:
    """Bytes that are no text are spelled out, so that tokens of one name are of one text."""
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
