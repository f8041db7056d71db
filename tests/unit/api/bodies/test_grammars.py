from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given, settings
from llguidance import LLMatcher, LLTokenizer

from faasmoe.api.bodies import grammars
from faasmoe.engine.grammar.matcher import GrammarMatcher
from faasmoe.engine.grammar.vocabulary import grammar_vocabulary
from faasmoe.errors import RequestError

_PIECES = ['{"', '":', '": "', '",', '", "', "},", "}]", " the", "name", "\n  ", "12", ".5", "true", "null", "é"]


class _Bytes:
    """A tokenizer of bytes, of some pieces of JSON, and of an end token."""

    special_tokens = (256,)

    def __init__(self) -> None:
        self._tokens = [bytes([i]) for i in range(256)] + [b"<end>"] + [piece.encode() for piece in _PIECES]
        self.size = len(self._tokens)

    def token_bytes(self, token: int) -> bytes:
        return self._tokens[token]

    def plain(self, text: str) -> list[int]:
        return list(text.encode())


_TOKENIZER = _Bytes()
_TOKENS: LLTokenizer = grammar_vocabulary(_TOKENIZER, _TOKENIZER.size, [256])
_MOST = 400  # tokens; behind them the answer is led to its end


def answer(grammar: str, rng: random.Random) -> str:
    """A sentence of `grammar`, token by token, each drawn from those that are allowed."""
    place = GrammarMatcher(LLMatcher(_TOKENS, grammar), _TOKENIZER.size)
    written = b""
    for count in range(10 * _MOST):
        allowed = place.allowed().nonzero()[0].tolist()
        token = closing(allowed) if count > _MOST else rng.choice(allowed)
        if token == 256:
            break
        written += _TOKENIZER.token_bytes(token)
        if place.take(token):
            break
    return written.decode()


def closing(allowed: list[int]) -> int:
    """The token that ends soonest: the end itself, or what closes something."""
    first = [256, *b'"}]', *b"0123456789"]
    return next((token for token in first if token in allowed), allowed[0])


_NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5)
_LEAVES = st.one_of(
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(0, 8)),
    st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
              st.integers(-50, 50), st.integers(0, 99)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "number", "minimum": 0, "maximum": 9}]),
    st.builds(lambda values: {"enum": values},
              st.lists(st.one_of(st.integers(-9, 9), st.text(max_size=4), st.none()), min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, _NAMES),
    st.sampled_from([{"type": "string", "pattern": "^[a-z]{2,5}$"}, {"type": "string", "format": "date"}]),
)  # fmt: skip


def _object(properties: dict[str, Any], optional: int) -> dict[str, Any]:
    names = sorted(properties)
    required = names[: max(0, len(names) - optional)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(_object, st.dictionaries(_NAMES, inner, max_size=3), st.integers(0, 2)),
        st.builds(
            lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.integers(0, 3)
        ),
        st.builds(lambda either, other: {"anyOf": [either, other]}, inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None)
@given(schema=_SCHEMAS, seed=st.integers(0, 2**32))
def test_every_answer_under_a_schema_parses_and_validates(schema: dict[str, Any], seed: int) -> None:
    text = answer(grammars.json_schema(schema, "response_format"), random.Random(seed))
    jsonschema.validate(json.loads(text), schema)


def test_an_answer_under_json_object_is_an_object() -> None:
    grammar = grammars.json_object("response_format")
    assert all(isinstance(json.loads(answer(grammar, random.Random(seed))), dict) for seed in range(10))


def _recursive() -> dict[str, Any]:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}, "additionalProperties": False}
    return {"$ref": "#/$defs/n", "$defs": {"n": node}}


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        '{"type": "integer"}',
        _recursive(),
        {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]},
        {"type": ["string", "null"], "maxLength": 3, "title": "T", "description": "d", "default": None},
        {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
        {"type": "object", "patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "minItems": 2, "maxItems": 2},
        {"type": "number", "multipleOf": 0.5},
        {"type": "integer", "minimum": -(10**12)},
        {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]},
        *({"type": "string", "format": name} for name in ("date-time", "time", "email", "uuid", "ipv4", "uri")),
    ],
    ids=str,
)
def test_schemas_of_all_kinds_are_taken(schema: Any) -> None:
    text = answer(grammars.json_schema(schema, "response_format"), random.Random(1))
    jsonschema.validate(json.loads(text), json.loads(schema) if isinstance(schema, str) else schema)


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def _hostile() -> Iterator[Any]:
    yield pytest.param(_deep(300), "recursion", id="deep")
    yield pytest.param({"enum": [f"value{i}" for i in range(100_000)]}, "has more than|too big", id="large")
    halves = [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(2)]} for i in range(20)]
    yield pytest.param({"allOf": halves}, "too large", id="exponential")
    yield pytest.param({"$ref": "http://example.org/schema"}, "not present", id="remote")


@pytest.mark.parametrize(("schema", "why"), list(_hostile()))
def test_hostile_schemas_are_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        grammars.json_schema(schema, "response_format")
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "strang"}, "Invalid type"),
        ({"type": "string", "format": "no-such"}, "Unknown format"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "Unsatisfiable"),
        ({"type": "integer", "minimum": -(10**30)}, "integer range"),
        ("{", "not valid JSON"),
        ("[]", "must be an object"),
    ],
    ids=str,
)
def test_what_a_grammar_cannot_say_is_refused_by_name(schema: Any, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        grammars.json_schema(schema, "response_format")


def test_answers_match_a_pattern_a_choice_or_a_grammar() -> None:
    rng = random.Random(0)
    assert len(answer(grammars.regex("[ab]{4}", "f"), rng)) == 4
    assert {answer(grammars.choice(['yes "x"', "no\n"], "f"), rng) for _ in range(40)} == {'yes "x"', "no\n"}
    lark = 'start: "<" WORD ">"\nWORD: /[a-z]{2}/'
    assert answer(grammars.context_free(lark, "f"), rng)[0::3] == "<>"
    assert answer(grammars.context_free('root ::= "a" [0-9] "b"', "f"), rng)[0::2] == "ab"


@pytest.mark.parametrize("build", [grammars.regex, grammars.context_free])
def test_what_is_no_pattern_or_grammar_is_refused(build: Any) -> None:
    with pytest.raises(RequestError, match="structured_outputs cannot be honoured") as caught:
        build("(", "structured_outputs")
    assert caught.value.param == "structured_outputs"
