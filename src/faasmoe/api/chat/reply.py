"""One response as its parts: content, reasoning and calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faasmoe.api.chat.call_formats import FORMATS
from faasmoe.api.chat.call_parser import CallParser
from faasmoe.api.chat.deltas import CallStart, Content, Delta, Parser, Reasoning
from faasmoe.api.chat.harmony import HarmonyParser
from faasmoe.api.chat.thinking import THINKING_FORMATS, ThinkingParser
from faasmoe.protocol.request import Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyFormat:
    """How to read the responses to a request. Plain fields only: it travels between processes."""

    thinking: str = ""  # a name of `THINKING_FORMATS`; empty: no reasoning
    opened: bool = False  # the prompt begins the reasoning
    calls: str = ""  # a name of `FORMATS`; empty: no calls
    types: dict[str, dict[str, str]] = field(default_factory=dict)  # of tools: of parameters: JSON Schema's types


HARMONY = "harmony"


class ReplyReader:
    """Takes the pieces of one response."""

    def __init__(self, form: ReplyFormat, new_id: Callable[[], str] | None = None) -> None:
        self._thinking: ThinkingParser | None = None
        self._harmony: HarmonyParser | None = None
        self._calls: Parser | None = None
        if HARMONY in (form.thinking, form.calls):
            self._harmony = HarmonyParser(*[new_id] if new_id else [])
        else:
            if form.thinking:
                self._thinking = ThinkingParser(THINKING_FORMATS[form.thinking], opened=form.opened)
            if form.calls:
                self._calls = CallParser(FORMATS[form.calls], form.types, new_id)
        self._tokens = 0
        self.reasoning_tokens = 0  # those of pieces that came while the model was thinking
        self.called = False  # a call has begun

    def piece(self, piece: Piece) -> list[Delta]:
        """What `piece` adds. With the last piece of a response comes all that was held back."""
        before = self._is_thinking
        deltas = self._fed(piece.text)
        if piece.last:
            deltas += self._ended()
        more, self._tokens = piece.tokens - self._tokens, piece.tokens
        if before or self._is_thinking:
            self.reasoning_tokens += more
        self.called = self.called or any(isinstance(delta, CallStart) for delta in deltas)
        return deltas

    def finish_reason(self, piece: Piece) -> str | None:
        """Why the response ended: that of the piece, or `tool_calls`."""
        return "tool_calls" if piece.finish_reason == "stop" and self.called else piece.finish_reason

    @property
    def _is_thinking(self) -> bool:
        source = self._harmony or self._thinking
        return bool(source and source.thinking)

    def _fed(self, text: str) -> list[Delta]:
        if self._harmony:
            return self._harmony.feed(text)
        return self._read_calls(self._thinking.feed(text) if self._thinking else [Content(text)] if text else [])

    def _ended(self) -> list[Delta]:
        if self._harmony:
            return self._harmony.end()
        deltas = self._read_calls(self._thinking.end()) if self._thinking else []
        return [*deltas, *(self._calls.end() if self._calls else ())]

    def _read_calls(self, deltas: list[Delta]) -> list[Delta]:
        if not self._calls:
            return deltas
        found: list[Delta] = []
        for delta in deltas:
            found += self._calls.feed(delta.text) if isinstance(delta, Content) else [delta]
        return found


@dataclass(slots=True)
class ReplyParts:
    """The parts of a whole response."""

    content: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)  # each with `id`, `name` and `arguments`, a text

    def add(self, deltas: list[Delta]) -> None:
        """Add deltas in their order."""
        for delta in deltas:
            if isinstance(delta, Content):
                self.content += delta.text
            elif isinstance(delta, Reasoning):
                self.reasoning += delta.text
            elif isinstance(delta, CallStart):
                self.calls.append({"id": delta.id, "name": delta.name, "arguments": ""})
            else:
                self.calls[delta.index]["arguments"] += delta.text
