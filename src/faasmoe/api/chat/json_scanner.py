"""JSON that models write: finds the end of one value in a text that comes in pieces, and writes values anew."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_STEP = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')
_BARE = re.compile(r"[\s,\]}]")  # what ends a number, a truth value or null


class JsonScanner:
    """Follows strings and brackets of one value, which is not checked otherwise."""

    def __init__(self, *, inside: bool = False) -> None:
        """`inside`: the text begins within an object, behind one of its values."""
        self._depth = 1 if inside else 0
        self._string = self._escaped = self._bare = False
        self.begun = inside
        self.done = False

    def take(self, text: str) -> int:
        """How many characters of `text` belong to the value; `done` says whether it ends with them."""
        at = 0
        while at < len(text) and not self.done:
            at = self._in_string(text, at) if self._string else self._outside(text, at)
        return at

    def _in_string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        found = _IN_STRING.search(text, at)
        if not found:
            return len(text)
        if found[0] == "\\":
            self._escaped = True
        else:
            self._string = False
            self.done = self._depth == 0
        return found.end()

    def _outside(self, text: str, at: int) -> int:
        if not self.begun:
            if text[at].isspace():
                return at + 1
            self.begun = True
            self._bare = text[at] not in '"{['
        if self._bare:
            found = _BARE.search(text, at)
            self.done = found is not None
            return found.start() if found else len(text)
        found = _STEP.search(text, at)
        if not found:
            return len(text)
        if found[0] == '"':
            self._string = True
        else:
            self._depth += 1 if found[0] in "{[" else -1
            self.done = self._depth <= 0
        return found.end()


def json_object(text: str) -> dict[str, Any] | None:
    """The object that `text` is, empty for an empty text; None if it is none that can be sent as JSON.

    JSON may escape half of a surrogate pair, which UTF-8 cannot hold, and Python takes NaN for a number.
    """
    try:
        value = msgspec.json.decode(text or "{}")
        msgspec.json.encode([[[[value]]]])  # as deep as it will lie in a response
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_text(value: Any) -> str:
    """A value as JSON that UTF-8 can hold: half of a surrogate pair stays escaped. Raises `RecursionError`."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or _encodes(text) else json.dumps(value)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
