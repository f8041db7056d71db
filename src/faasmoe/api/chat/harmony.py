"""Responses of gpt-oss, whose messages go to channels (https://cookbook.openai.com/articles/openai-harmony).

The library openai-harmony fetches its vocabulary when it is first used, which a server without a network cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from faasmoe.api.chat.call_id import call_id
from faasmoe.api.chat.deltas import CallArguments, CallStart, Content, Delta, Reasoning, beginning_at_end

SIGNS = ("<|channel|>", "<|message|>")
_MESSAGE = "<|message|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>")
_END = re.compile("|".join(map(re.escape, _ENDS)))
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]{1,256})")


class HarmonyParser:
    """Tells reasoning (the channel `analysis`), calls (messages to functions) and the answer apart."""

    def __init__(self, new_id: Callable[[], str] = call_id) -> None:
        self._new_id = new_id
        self._text = ""
        self._head = True  # before `<|message|>`
        self._searched = 0  # characters of a head in which its end is not
        self._kind: type[Content] | type[Reasoning] | None = Content  # None: arguments of a call
        self.calls = 0
        self.thinking = False

    def feed(self, text: str) -> list[Delta]:
        """See `Parser`."""
        self._text += text
        found: list[Delta] = []
        while self._step(found):
            pass
        return found

    def end(self) -> list[Delta]:
        """See `Parser`."""
        found: list[Delta] = []
        if self._head:
            if self._text.strip() and not any(sign in self._text for sign in (*_ENDS, *SIGNS)):
                found.append(Content(self._text))  # no message at all
        else:
            self._tell(found, self._text)
        self._text = ""
        return found

    def _step(self, found: list[Delta]) -> bool:
        return self._read_head(found) if self._head else self._read_body(found)

    def _read_head(self, found: list[Delta]) -> bool:
        at = self._text.find(_MESSAGE, max(0, self._searched - len(_MESSAGE)))
        self._searched = len(self._text)
        if at < 0:
            return False
        head, self._text, self._head = self._text[:at], self._text[at + len(_MESSAGE) :], False
        channels, recipient = _CHANNEL.findall(head), _RECIPIENT.search(head)
        channel = channels[-1] if channels else "final"
        if recipient:
            self._kind = None
            found.append(CallStart(self.calls, self._new_id(), recipient[1]))
            self.calls += 1
        else:
            self._kind = Reasoning if channel == "analysis" else Content
        self.thinking = self._kind is Reasoning
        return True

    def _read_body(self, found: list[Delta]) -> bool:
        end = _END.search(self._text)
        if end:
            self._tell(found, self._text[: end.start()])
            keep = end[0] in ("<|start|>", "<|channel|>")
            self._text, self._head, self.thinking = self._text[end.start() if keep else end.end() :], True, False
            self._searched = 0
            return True
        kept = max(beginning_at_end(self._text, sign) for sign in _ENDS)
        self._tell(found, self._text[: len(self._text) - kept])
        self._text = self._text[len(self._text) - kept :]
        return False

    def _tell(self, found: list[Delta], text: str) -> None:
        if text:
            found.append(CallArguments(self.calls - 1, text) if self._kind is None else self._kind(text))
