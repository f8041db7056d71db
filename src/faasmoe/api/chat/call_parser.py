"""Tells calls of tools from the text around them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from faasmoe.api.chat.call_formats import CallFormat, Types
from faasmoe.api.chat.call_id import call_id
from faasmoe.api.chat.deltas import CallArguments, CallStart, Content, Delta, beginning_at_end
from faasmoe.api.chat.json_scanner import JsonScanner, json_text

_MOST_HEAD = 4096  # characters between the sign of a call and its arguments
_BETWEEN = " \t\r\n[,;"  # calls of a list
_FIELD = re.compile(r',\s*"')
_OPENING = re.compile(r"\s*[\[,;]?\s*(?=\{)")


class CallParser:
    """Reads one response's calls. What begins like a call and is none stays text of the answer."""

    def __init__(self, form: CallFormat, types: Types, new_id: Callable[[], str] | None = None) -> None:
        self._form = form
        self._types = types
        self._new_id = new_id or (lambda: call_id(form.id_length))
        self._text = ""  # that has not been told
        self._space = ""  # told only if text of the answer follows
        self._raw = ""  # of a call that has not begun to be told
        self._searched = 0  # characters of a body in which its end is not
        self._calls = 0
        self._said_since = True  # some text of the answer, since the last call
        self._scanner = JsonScanner()
        self._quoted: str | None = None  # arguments that are a string with JSON in it
        self._tail: list[str] = []
        self._state: Callable[[list[Delta], bool], bool] = self._first if form.bare else self._content

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._calls

    def feed(self, text: str) -> list[Delta]:
        """See `Parser`."""
        return self._run(text, False)

    def end(self) -> list[Delta]:
        """See `Parser`."""
        found = self._run("", True)
        rest = self._raw + self._text
        if self._state in (self._head, self._body) and rest:
            found.append(Content(self._space + rest))
        elif self._space and not self._calls:
            found.append(Content(self._space))
        return found

    def _run(self, text: str, last: bool) -> list[Delta]:
        self._text += text
        found: list[Delta] = []
        while self._state(found, last):
            pass
        return _joined(found)

    def _first(self, _: list[Delta], last: bool) -> bool:
        """The beginning of a response that may be a call without a sign."""
        stripped = self._text.lstrip()
        if not stripped and not last:
            return False
        if stripped.startswith("{"):
            self._begin("", stripped)
        else:
            self._state = self._content
        return True

    def _begin(self, raw: str, rest: str) -> None:
        self._raw, self._text, self._searched = raw, rest, 0
        self._state = self._body if self._form.body else self._head

    def _content(self, found: list[Delta], last: bool) -> bool:
        before, sign, after = self._text.partition(self._form.begin)
        if sign:
            self._say(found, before)
            self._begin(sign, after)
            return True
        kept = 0 if last else beginning_at_end(self._text, self._form.begin)
        self._say(found, self._text[: len(self._text) - kept])
        self._text = self._text[len(self._text) - kept :]
        return False

    def _say(self, found: list[Delta], text: str) -> None:
        """Tell text of the answer, but for whitespace at its end, and after a call at its beginning."""
        if self._calls and not self._space and not self._said_since:
            text = text.lstrip()
        sure = (self._space + text).rstrip()
        self._space = (self._space + text)[len(sure) :]
        if sure:
            self._said_since = True
            found.append(Content(sure))

    def _head(self, found: list[Delta], last: bool) -> bool:
        match = self._form.head.match(self._text, 0, _MOST_HEAD)
        if match:
            self._start(found, match["name"].strip())
            self._text = self._text[match.end() :]
            self._scanner, self._quoted = JsonScanner(), None
            self._state = self._arguments
            return True
        end = self._end_of_object()
        if end is None and not last and len(self._text) <= _MOST_HEAD:
            return False
        return self._no_head(found, end, last)

    def _end_of_object(self) -> int | None:
        """Where the text of one call ends, by its last sign or its brackets; None if that is not within reach."""
        text, tail = self._text[:_MOST_HEAD], self._form.tail
        if len(tail) > 1:
            at = text.find(tail[-1])
            return None if at < 0 else at
        opening = _OPENING.match(text) if tail else None
        if not opening:
            return None
        scanner = JsonScanner()
        count = scanner.take(text[opening.end() :])
        return opening.end() + count if scanner.done else None

    def _no_head(self, found: list[Delta], end: int | None, last: bool) -> bool:
        """A call with its fields in another order, or without arguments, or no call at all."""
        inner = self._text[: _MOST_HEAD if end is None else end]
        sign = self._form.tail[-1] if end is not None and len(self._form.tail) > 1 else ""
        if (end is not None or last) and (call := _whole_call(inner.lstrip(_BETWEEN))):
            self._start(found, call[0])
            found.append(CallArguments(self._calls - 1, call[1]))
            self._text, self._state = self._text[len(inner) + len(sign) :], self._after
            return True
        if last and end is None and len(self._text) <= _MOST_HEAD:
            return False  # `end` tells it
        text = self._raw + inner + sign
        self._raw, self._text, self._state = "", self._text[len(inner) + len(sign) :], self._content
        self._said_since = True
        self._say(found, text)
        return True

    def _start(self, found: list[Delta], name: str) -> None:
        self._space = ""
        self._said_since = False
        found.append(CallStart(self._calls, self._new_id(), name))
        self._calls += 1

    def _arguments(self, found: list[Delta], last: bool) -> bool:
        text = self._text
        if not self._scanner.begun:
            text = text.lstrip()
            if not text:
                return False
            self._quoted = "" if text[0] == '"' else None
        count = self._scanner.take(text)
        part, self._text = text[:count], text[count:]
        if self._quoted is not None:
            self._quoted += part
            part = _unquoted(self._quoted) if self._scanner.done or last else ""
        if part:
            found.append(CallArguments(self._calls - 1, part))
        if not self._scanner.done:
            return False
        self._tail = list(self._form.tail)
        self._state = self._behind
        return True

    def _behind(self, _: list[Delta], last: bool) -> bool:
        """Skip the signs behind a call's arguments; what else stands there is text of the answer."""
        while self._tail:
            text = self._text.lstrip()
            if text.startswith(self._tail[0]):
                self._text = text[len(self._tail.pop(0)) :]
            elif not last and (self._tail[0].startswith(text) or (self._tail[0] == "}" and text.rstrip() == ",")):
                return False
            elif self._tail[0] == "}" and _FIELD.match(text):
                self._text, self._scanner = text, JsonScanner(inside=True)
                self._state = self._fields
                return True
            else:
                break
        self._state = self._after
        return True

    def _fields(self, _: list[Delta], __: bool) -> bool:
        """Skip fields behind a call's arguments, such as Mistral's `id`, and the end of its object."""
        self._text = self._text[self._scanner.take(self._text) :]
        if not self._scanner.done:
            return False
        self._tail.pop(0)
        self._state = self._behind
        return True

    def _after(self, _: list[Delta], last: bool) -> bool:
        text = self._text.lstrip()
        form = self._form
        signs = [sign for sign in (form.begin, *form.again, form.close) if sign]
        found = next((sign for sign in signs if text.startswith(sign)), None)
        if found is None:
            if not last and any(sign.startswith(text) for sign in signs):
                return False
            self._state = self._content
            return True
        if found == form.close:
            self._text = text[len(found) :]
            self._state = self._content
        elif found == form.begin:
            self._begin(found, text[len(found) :])
        else:
            self._begin("", text)
        return True

    def _body(self, found: list[Delta], _: bool) -> bool:
        end = self._form.close
        at = self._text.find(end, max(0, self._searched - len(end)))
        self._searched = len(self._text)
        if at < 0:
            return False
        inner, after = self._text[:at], self._text[at + len(end) :]
        calls = self._form.body(inner, self._types) if self._form.body else None
        if calls is None:
            self._said_since = True
            self._say(found, self._raw + inner + end)
        for name, arguments in calls or ():
            self._start(found, name)
            found.append(CallArguments(self._calls - 1, arguments))
        self._raw, self._text, self._state = "", after, self._content
        return True


def _whole_call(text: str) -> tuple[str, str] | None:
    """The name and the arguments of a JSON object, in any order of its fields."""
    try:
        value = json.loads(text)
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return None
        arguments = value.get("arguments", value.get("parameters", {}))
        written = _whole(arguments) if isinstance(arguments, str) else json_text(arguments)
    except (ValueError, RecursionError):
        return None
    return _whole(value["name"]), written


def _unquoted(text: str) -> str:
    try:
        return _whole(str(json.loads(text)))
    except ValueError:
        return text


def _whole(text: str) -> str:
    """The same text with a question mark for each half of a surrogate pair, which UTF-8 cannot hold."""
    return text.encode(errors="replace").decode()


def _joined(deltas: list[Delta]) -> list[Delta]:
    """Neighbouring parts of one text or of one call as one."""
    found: list[Delta] = []
    for delta in deltas:
        last = found[-1] if found else None
        if isinstance(delta, Content) and isinstance(last, Content):
            found[-1] = Content(last.text + delta.text)
        elif isinstance(delta, CallArguments) and isinstance(last, CallArguments) and last.index == delta.index:
            found[-1] = CallArguments(delta.index, last.text + delta.text)
        else:
            found.append(delta)
    return found
