"""Which tokens of a tokenizer control a model, and how texts are marked so that users cannot spell them.

A control token is one that text of a template or a runtime is made of, such as `<|im_start|>`; a user who could write
one could forge a turn of the conversation. Only a template may write them. Where it does, their text is replaced by a
*marker* before encoding, and the tokenizer is told to know the markers instead of the texts. What users write keeps its
text, and becomes ordinary tokens.

Markers are made of the noncharacters U+FDD0 to U+FDEF, which Unicode sets apart for uses like this: no text that is
exchanged between programs may have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from faasmoe.errors import RequestError
from tokenizers import AddedToken

_DIGITS = "".join(chr(0xFDD0 + digit) for digit in range(16))
MARKS_TOKEN, _PIECE, _END = "\ufde0", "\ufde1", "\ufde2"
_ANY = re.compile("[\ufdd0-\ufdef]")
_NEVER = re.compile(r"(?!)")
_PIECES = re.compile(f"{_PIECE}([{_DIGITS}]+){_END}")
TOKENS = re.compile(f"{MARKS_TOKEN}[{_DIGITS}]+{_END}")
_BARRED = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)  # noqa: RUF001 - the form of most control tokens, DeepSeek's bar included


def is_control(token: AddedToken, template: str) -> bool:
    """Whether users must not spell `token`: a special one, one of the usual form, or one that the template writes.

    Many tokenizers have added tokens that are ordinary text, such as runs of spaces or HTML tags: these are none.
    """
    text = token.content
    return bool(token.special or _BARRED.fullmatch(text) or (text.strip() and text in template))


def is_control_of_answers(token: AddedToken) -> bool:
    """Whether an assistant's message must not spell `token`: as above, but for what models themselves write as text,
    such as `<think>`."""
    return bool(token.special or _BARRED.fullmatch(token.content))


def marker(number: int) -> str:
    """What stands for the control token of this number."""
    return _spelled(MARKS_TOKEN, number)


def check(text: str, field: str) -> None:
    """Raises `RequestError` naming `field` if `text` has characters that markers are made of."""
    if found := _ANY.search(text):
        raise RequestError(
            f"{field} has U+{ord(found[0]):04X}, a noncharacter, which no text may have", param=field
        )


class Marks:
    """Markers for one list of control tokens, of which `answers` are those that an assistant must not spell."""

    def __init__(self, tokens: Sequence[str], answers: Iterable[str]) -> None:
        self._markers = {token: marker(number) for number, token in enumerate(tokens)}
        self._all = _one_of(tokens)
        self._answers = _one_of(answers)
        self._longest = max(map(len, tokens), default=0)
        self._beginnings = frozenset(token[:n] for token in tokens for n in range(1, len(token)))
        self._ends = frozenset(token[n:] for token in tokens for n in range(1, len(token)))

    def spelled(self, text: str) -> str | None:
        """The first control token that `text` spells."""
        found = self._all.search(text)
        return found[0] if found else None

    def hide(self, contents: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
        """Roles and contents as a template may have them, and what `show` needs to undo it.

        Wherever a content spells a control token, or a part of one at its beginning or end, which might become whole
        beside what stands there, something else stands that no template looks for.
        """
        hidden: list[str] = []
        return [self._hide(role, content, hidden) for role, content in contents], hidden

    def _hide(self, role: str, content: str, hidden: list[str]) -> str:
        spelled = self._answers if role == "assistant" else self._all
        spans = [found.span() for found in spelled.finditer(content)]
        spans += self._parts(content)
        made, at = [], 0
        for start, end in _united(spans):
            made += [content[at:start], _spelled(_PIECE, len(hidden))]
            hidden.append(content[start:end])
            at = end
        return "".join([*made, content[at:]])

    def _parts(self, content: str) -> list[tuple[int, int]]:
        """Where `content` begins with an end of a control token, ends with a beginning of one, or lies within one."""
        size = len(content)
        if 0 < size < self._longest and any(content in token and content != token for token in self._markers):
            return [(0, size)]
        most = min(self._longest - 1, size)
        start = next((n for n in range(most, 0, -1) if content[:n] in self._ends), 0)
        end = next((n for n in range(most, 0, -1) if content[size - n :] in self._beginnings), 0)
        return [span for span in ((0, start), (size - end, size)) if span[0] < span[1]]

    def show(self, rendered: str, hidden: Sequence[str], field: str) -> str:
        """What a template has made, with markers for its control tokens, and contents as they were.

        Raises `RequestError` naming `field` if the template has cut something apart that stands for a control token.
        """
        marked = self._all.sub(lambda found: self._markers[found[0]], rendered)
        check(TOKENS.sub("", _PIECES.sub(lambda found: "" if _number(found[1]) < len(hidden) else found[0], marked)),
              field)  # fmt: skip
        return _PIECES.sub(lambda found: hidden[_number(found[1])], marked)


def _united(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same characters in spans that neither overlap nor touch, from left to right."""
    united: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united


def _one_of(texts: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else _NEVER


def _spelled(kind: str, number: int) -> str:
    return kind + "".join(_DIGITS[int(digit, 16)] for digit in f"{number:x}") + _END


def _number(digits: str) -> int:
    return int("".join(f"{_DIGITS.index(digit):x}" for digit in digits), 16)
