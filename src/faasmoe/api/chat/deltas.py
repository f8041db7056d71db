"""What a piece of a response's text adds to its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Content:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of a tool begins."""

    index: int  # of the response's calls
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A part of a call's arguments, which all together are JSON if the model writes JSON."""

    index: int
    text: str


Delta = Content | Reasoning | CallStart | CallArguments


class Parser(Protocol):
    """Takes the text of one response apart. The same text gives the same deltas in sum, in whatever pieces it comes."""

    def feed(self, text: str) -> list[Delta]:
        """What has become certain with `text`."""

    def end(self) -> list[Delta]:
        """What was held back. Called once, after the last text."""


def beginning_at_end(text: str, sign: str) -> int:
    """Characters at the end of `text` that are the beginning of `sign`, but not all of it."""
    most = min(len(sign) - 1, len(text))
    return next((n for n in range(most, 0, -1) if text.endswith(sign[:n])), 0)
