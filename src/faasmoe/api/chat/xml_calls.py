"""Calls whose arguments are no JSON but values between tags, each read by the type that the tool's schema gives it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from faasmoe.api.chat.json_scanner import json_text

Types = Mapping[str, Mapping[str, str]]

_FUNCTION = re.compile(r"<function=([^>\n]{1,256})>")
_PARAMETER = re.compile(r"<parameter=([^>\n]{1,256})>")
_KEY = re.compile(r"<arg_key>([^<\n]{1,256})</arg_key>\s*<arg_value>")
_INVOKE = re.compile(r'<invoke name="([^"\n]{1,256})">')
_NAMED = re.compile(r'<parameter name="([^"\n]{1,256})">')


def qwen(body: str, types: Types) -> list[tuple[str, str]] | None:
    """Names and arguments of the calls in Qwen3-Coder's form; None if there are none."""
    found = [
        (name, _arguments(_between(inner, _PARAMETER, "</parameter>"), types.get(name)))
        for name, inner in _between(body, _FUNCTION, "</function>")
    ]
    return found or None


def glm(body: str, types: Types) -> list[tuple[str, str]] | None:
    """The same in GLM-4.5's form."""
    name = re.split(r"\s|<", body.strip(), maxsplit=1)[0]
    return [(name, _arguments(_between(body, _KEY, "</arg_value>"), types.get(name)))] if name else None


def minimax(body: str, types: Types) -> list[tuple[str, str]] | None:
    """The same in MiniMax M2's form."""
    found = [
        (name, _arguments(_between(inner, _NAMED, "</parameter>"), types.get(name)))
        for name, inner in _between(body, _INVOKE, "</invoke>")
    ]
    return found or None


def _between(text: str, begin: re.Pattern[str], end: str) -> Iterator[tuple[str, str]]:
    """What `begin` names, and the text behind it up to `end`, in one pass: a model may write what has no end."""
    at = 0
    while (found := begin.search(text, at)) and (close := text.find(end, found.end())) >= 0:
        yield found[1], text[found.end() : close]
        at = close + len(end)


def _arguments(pairs: Iterable[tuple[str, str]], types: Mapping[str, str] | None) -> str:
    texts = {name.strip(): text.removeprefix("\n").removesuffix("\n") for name, text in pairs}
    return json_text({name: _value(text, (types or {}).get(name, "")) for name, text in texts.items()})


def _value(text: str, kind: str) -> Any:
    """A text is itself if the schema says so; else it is JSON, or a text if it is none."""
    if kind == "string":
        return text
    try:
        value = json.loads(text)
        json.dumps({"": value}, allow_nan=False)
    except (ValueError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(text.strip(), text)
    return value
