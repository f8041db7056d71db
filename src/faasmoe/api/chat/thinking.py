"""Reasoning that models write before the answer, between two signs such as `<think>` and `</think>`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faasmoe.api.chat.deltas import Content, Delta, Reasoning, beginning_at_end


@dataclass(frozen=True, slots=True)
class ThinkingFormat:
    """The signs around reasoning."""

    name: str
    begin: str
    end: str


THINKING_FORMATS = {
    each.name: each
    for each in (
        ThinkingFormat(
            "think", "<think>", "</think>"
        ),  # DeepSeek R1, Qwen3, GLM-4.5, MiniMax M2, Kimi K2 Thinking
        ThinkingFormat("mistral", "[THINK]", "[/THINK]"),  # Magistral
        ThinkingFormat("seed", "<seed:think>", "</seed:think>"),  # Seed-OSS
    )
}


def recognised_thinking(template: str, has_token: Callable[[str], bool]) -> ThinkingFormat | None:
    """The format that a chat template or tokenizer has the signs of; None if a model does not think."""
    for each in THINKING_FORMATS.values():
        if each.end in template or (has_token(each.begin) and has_token(each.end)):
            return each
    return None


class ThinkingParser:
    """Tells reasoning from what follows it. Whitespace around the signs belongs to neither."""

    def __init__(self, form: ThinkingFormat, *, opened: bool) -> None:
        """`opened`: the prompt ends with the sign that begins the reasoning."""
        self._form = form
        self._text = ""  # that has not been told
        self._state: Callable[[bool], list[Delta]] = self._thinking if opened else self._start
        self.thinking = opened
        self._begun = False  # some reasoning has been told

    def feed(self, text: str) -> list[Delta]:
        """See `Parser`."""
        self._text += text
        return self._state(False)

    def end(self) -> list[Delta]:
        """See `Parser`."""
        return self._state(True)

    def _start(self, last: bool) -> list[Delta]:
        begin, text = self._form.begin, self._text.lstrip()
        if text.startswith(begin):
            self._text = text[len(begin) :]
            self._state, self.thinking = self._thinking, True
            return self._thinking(last)
        if not last and begin.startswith(text):
            return []
        self._state = self._answering
        return self._answering(last)

    def _thinking(self, last: bool) -> list[Delta]:
        if not self._begun:
            self._text = self._text.lstrip()
        before, found, after = self._text.partition(self._form.end)
        if found:
            self._text, self.thinking, self._state = after, False, self._behind
            return [*self._thought(before.rstrip()), *self._behind(last)]
        kept = 0 if last else beginning_at_end(self._text, self._form.end)
        sure = self._text[: len(self._text) - kept].rstrip()
        self._text = self._text[len(sure) :]
        return self._thought(sure)

    def _thought(self, text: str) -> list[Delta]:
        self._begun = self._begun or bool(text)
        return [Reasoning(text)] if text else []

    def _behind(self, last: bool) -> list[Delta]:
        self._text = self._text.lstrip()
        if not self._text:
            return []
        self._state = self._answering
        return self._answering(last)

    def _answering(self, _: bool) -> list[Delta]:
        text, self._text = self._text, ""
        return [Content(text)] if text else []
