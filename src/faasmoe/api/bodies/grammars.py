"""What a response has to look like, as a grammar in llguidance's form, which the engine compiles.

Runs in readers: a schema is checked there, with the bounds on time and memory that all bodies have. The parameter
`field` of each function is the field of the body that an error names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits, grammar_from

from faasmoe.errors import RequestError, brief
from faasmoe.protocol.request import GRAMMAR_LIMITS, MAX_GRAMMAR

# between the parts of JSON: a space, or a new line and its indentation. Unbounded, a model may write spaces for ever
WHITESPACE = r"( |\r?\n[ \t]{0,40})?"


def json_object(field: str) -> str:
    """Any JSON object."""
    return json_schema({"type": "object"}, field)


def json_schema(schema: dict[str, Any] | bool | str, field: str) -> str:
    """JSON that `schema` describes: its object, or its text. Raises `RequestError` naming `field`."""
    return checked(_text_of(schema, field), field)


def regex(pattern: str, field: str) -> str:
    """Text that `pattern` matches as a whole, in the syntax of Rust's crate regex. Raises `RequestError`."""
    return checked(LLMatcher.grammar_from_regex(pattern), field)


def choice(texts: Sequence[str], field: str) -> str:
    """One of `texts`. Raises `RequestError`."""
    alternatives = " | ".join(map(json.dumps, texts))
    return checked(LLMatcher.grammar_from_lark(f"start: {alternatives}"), field)


def context_free(text: str, field: str) -> str:
    """A sentence of a grammar in the form of Lark (llguidance's) or GBNF (llama.cpp's). Raises `RequestError`."""
    try:
        grammar = grammar_from("grammar", text)
    except ValueError as error:
        raise _refused(field, brief(error)) from None
    return checked(grammar, field)


def lark_schema(schema: dict[str, Any], field: str) -> str:
    """`schema` as a term of a grammar in Lark's form, for grammars that have more than JSON."""
    return "%json " + json.dumps(_with_whitespace(_object_of(schema, field)))


def checked(grammar: str, field: str) -> str:
    """`grammar`. Raises `RequestError` if it cannot be compiled, or not within the limits."""
    if len(grammar) > MAX_GRAMMAR:
        raise _refused(field, f"it has more than {MAX_GRAMMAR} characters")
    limits = LLParserLimits(**GRAMMAR_LIMITS)
    if cause := LLMatcher.validate_grammar(grammar, limits=limits):
        raise _refused(field, brief(ValueError(cause)))
    return grammar


def _text_of(schema: dict[str, Any] | bool | str, field: str) -> str:
    return str(LLMatcher.grammar_from_json_schema(json.dumps(_with_whitespace(_object_of(schema, field)))))


def _object_of(schema: dict[str, Any] | bool | str, field: str) -> dict[str, Any]:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError):
            raise _refused(field, "the text of the schema is not valid JSON") from None
    if schema is True:  # anything, in JSON Schema
        return {}
    if not isinstance(schema, dict):
        raise _refused(field, "a schema must be an object")
    return schema


def _with_whitespace(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "x-guidance": {"whitespace_pattern": WHITESPACE}}


def _refused(field: str, cause: str) -> RequestError:
    return RequestError(f"{field} cannot be honoured: {cause}", param=field)
