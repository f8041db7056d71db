"""Calls whose arguments are no JSON but values between tags, each read by the type that the tool's schema gives it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

Types = Mapping[str, Mapping[str, str]]

_FUNCTION = re.compile(r"<function=([^>\n]{1,256})>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]{1,256})>\n?(.*?)\n?</parameter>", re.DOTALL)
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>\n?(.*?)\n?</arg_value>", re.DOTALL)
_INVOKE = re.compile(r'<invoke name="([^"\n]{1,256})">(.*?)</invoke>', re.DOTALL)
_NAMED = re.compile(r'<parameter name="([^"\n]{1,256})">\n?(.*?)\n?</parameter>', re.DOTALL)


def qwen(body: str, types: Types) -> list[tuple[str, str]] | None:
    """Names and arguments of the calls in Qwen3-Coder's form; None if there are none."""
    found = [
        (name, _arguments(_PARAMETER.findall(inner), types.get(name))) for name, inner in _FUNCTION.findall(body)
    ]
    return found or None


def glm(body: str, types: Types) -> list[tuple[str, str]] | None:
    """The same in GLM-4.5's form."""
    name = re.split(r"\s|<", body.strip(), maxsplit=1)[0]
    return [(name, _arguments(_PAIR.findall(body), types.get(name)))] if name else None


def minimax(body: str, types: Types) -> list[tuple[str, str]] | None:
    """The same in MiniMax M2's form."""
    found = [(name, _arguments(_NAMED.findall(inner), types.get(name))) for name, inner in _INVOKE.findall(body)]
    return found or None


def _arguments(pairs: Iterable[tuple[str, str]], types: Mapping[str, str] | None) -> str:
    values = {name.strip(): _value(text, (types or {}).get(name.strip(), "")) for name, text in pairs}
    return json.dumps(values, ensure_ascii=False)


def _value(text: str, kind: str) -> Any:
    """A text is itself if the schema says so; else it is JSON, or a text if it is none."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(text.strip(), text)
