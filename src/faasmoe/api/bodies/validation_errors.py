"""Words pydantic's validation errors for clients."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from faasmoe.api.bodies.shapes import NO_CHARACTER, NO_SHAPE, is_shape
from faasmoe.errors import RequestError

_LONGEST_NAME = 100  # characters of a field's name that a message repeats
_LONGEST_NUMBER = 24
_PYTHON = re.compile(r"\b(True|False)\b")
_PLACES = ("body", "query", "path")  # FastAPI puts them in front of a field's path
_KEY = "[key]"  # pydantic puts it behind that of an object's name
_WORDS = {  # by pydantic's name of an error; `given` describes the value, `text` is pydantic's message
    "string_type": "must be a string, not {given}",
    "int_type": "must be an integer, not {given}",
    "int_from_float": "must be an integer, not {given}",
    "float_type": "must be a number, not {given}",
    "bool_type": "must be true or false, not {given}",
    "list_type": "must be a list, not {given}",
    "dict_type": "must be an object, not {given}",
    "model_type": "must be an object, not {given}",
    "model_attributes_type": "must be an object, not {given}",
    NO_SHAPE: "must be {text}, not {given}",
    "greater_than": "must be above {gt}, not {given}",
    "greater_than_equal": "must be at least {ge}, not {given}",
    "less_than": "must be below {lt}, not {given}",
    "less_than_equal": "must be at most {le}, not {given}",
    "too_long": "must have at most {max_length} {items}, not {count}",
    "too_short": "must have at least {min_length} item, and has none",
    "missing": "must be given",
    "value_error": "{error}",
    "string_unicode": NO_CHARACTER,
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "extra_forbidden": "this server does not know or honour this field",
    "none_required": "this server does not honour this field; leave it out",
    "literal_error": "this server does not honour this; it takes only {expected}",
}
_ONLY_EMPTY = "this server does not honour this; leave it out or empty"
_OTHER = "this value is not taken"
_WRONG_BODY = "the body must be JSON, and the header Content-Type must be application/json"


def refusal_of(found: Sequence[Mapping[str, Any]], known: Sequence[str] = ()) -> RequestError:
    """The error for pydantic's findings, of which there is at least one. `known` are the fields of the body."""
    first = found[0]
    where = [str(part)[:_LONGEST_NAME] for part in _path(first["loc"])]
    param = where[0] if where and first["type"] != "json_invalid" else None
    field = ".".join(where[:1] + [part for part in where[1:] if not is_shape(part) and part != _KEY])
    unknown = first["type"] == "extra_forbidden" and len(where) == 1
    near = difflib.get_close_matches(field, known, 1) if unknown else []
    hint = f"; the nearest that it knows is {near[0]}" if near else ""
    return RequestError(_complaint(first, field) + hint, param=param)


def _path(where: Sequence[Any]) -> Sequence[Any]:
    return where[1:] if where[:1] == ("body",) or (len(where) > 1 and where[0] in _PLACES) else where


def _complaint(error: Mapping[str, Any], field: str) -> str:
    if error["type"] == "json_invalid":
        return f"the body is not valid JSON: {error['ctx']['error']}"
    if isinstance(error.get("input"), bytes):  # FastAPI has not parsed it
        return _WRONG_BODY
    return f"{field or 'body'}: {_what(error)}"


def _what(error: Mapping[str, Any]) -> str:
    kind, about, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "too_long" and about["max_length"] == 0:
        return _ONLY_EMPTY
    facts = {name: _in_json(value) for name, value in about.items()}
    if kind == "too_long":
        facts |= {"items": "characters" if isinstance(given, str) else "items", "count": len(given or ())}
    return _WORDS.get(kind, _OTHER).format(**facts, given=_said(given), text=error["msg"])


def _said(value: Any) -> str:
    """Describe a value without repeating its text."""
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "a list"
    if value is not None and not isinstance(value, int | float):
        return "an object"
    written = json.dumps(value)
    return written if len(written) <= _LONGEST_NUMBER else f"a number of {len(written)} digits"


def _in_json(about: Any) -> Any:
    """Write a bound, or pydantic's list of Python values, as JSON has it."""
    if isinstance(about, float):
        return f"{about:g}"
    return _PYTHON.sub(lambda found: found[0].lower(), about) if isinstance(about, str) else about
