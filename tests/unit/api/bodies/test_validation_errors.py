"""What clients are told of bodies that they got wrong."""

from __future__ import annotations

import asyncio
import json
from itertools import product
from types import UnionType
from typing import Any, Union, get_args, get_origin

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from faasmoe.api import errors
from faasmoe.api.bodies.fields import Body
from faasmoe.api.openai.schema import ChatBody, CompletionBody
from faasmoe.api.parsed_request import Bounds, EndpointName
from faasmoe.errors import RequestError
from faasmoe.readers.parser import RequestParser
from tests.reading import Letters

PARSER = RequestParser(Letters(), Bounds("m", 256, 1024))
USER = {"role": "user", "content": "x"}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
CALL: dict[str, Any] = {"id": "i", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LEAST: dict[EndpointName, dict[str, Any]] = {
    "completions": {"model": "m", "prompt": "p"},
    "chat": {"model": "m", "messages": [USER]},
}
BODIES: dict[EndpointName, type[Body]] = {"completions": CompletionBody, "chat": ChatBody}
JARGON = (
    "Input should",
    "Field required",
    "Value error",
    "union",
    "tagged",
    "function-",
    "constrained",
    "valid dictionary",
    "[key]",
    "(text)",
    "(list)",
    "(ids)",
    "None",
    "True",
    "False",
    "not taken",
)


def refusal(kind: EndpointName, body: object) -> RequestError | None:
    try:
        PARSER.parse(kind, json.dumps(body).encode())
    except RequestError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("kind", "body", "param", "message"),
    [
        ("completions", {"stop": ["a"] * 65}, "stop", "stop: must have at most 64 items, not 65"),
        ("completions", {"stop": 5}, "stop", "stop: must be a string or a list of up to 64 strings, not 5"),
        ("completions", {"stop": ["a", 1]}, "stop", "stop.1: must be a string, not 1"),
        ("completions", {"stop": "a" * 1025}, "stop", "stop: must have at most 1024 characters, not 1025"),
        ("completions", {"stop": ["a" * 1025]}, "stop", "stop.0: must have at most 1024 characters, not 1025"),
        ("completions", {"stop": ["\ud800"]}, "stop", "stop.0: half of a surrogate pair is no character"),
        (
            "completions",
            {"prompt": None},
            "prompt",
            "prompt: must be a string, a list of strings, a list of token ids, or a list of lists of token ids, "
            "not null",
        ),
        ("completions", {"prompt": [1, "a"]}, "prompt", "prompt.1: must be an integer, not a string"),
        ("completions", {"prompt": ["a", 1]}, "prompt", "prompt.1: must be a string, not 1"),
        ("completions", {"prompt": [[1], [2.5]]}, "prompt", "prompt.1.0: must be an integer, not 2.5"),
        ("completions", {"prompt": [{"text": "a"}]}, "prompt", "prompt.0: must be an integer, not an object"),
        ("completions", {"temperature": "hot"}, "temperature", "temperature: must be a number, not a string"),
        ("completions", {"temperature": 2.5}, "temperature", "temperature: must be at most 2, not 2.5"),
        ("completions", {"temperature": float("nan")}, "temperature", "temperature: must be at most 2, not NaN"),
        ("completions", {"top_p": -1}, "top_p", "top_p: must be at least 0, not -1"),
        ("completions", {"n": 129}, "n", "n: must be at most 128, not 129"),
        ("completions", {"n": True}, "n", "n: must be an integer, not true"),
        ("completions", {"stream": "yes"}, "stream", "stream: must be true or false, not a string"),
        ("completions", {"max_tokens": "5"}, "max_tokens", "max_tokens: must be an integer, not a string"),
        ("completions", {"max_tokens": -1}, "max_tokens", "max_tokens: must be at least 0, not -1"),
        (
            "completions",
            {"seed": 10**40},
            "seed",
            "seed: must be below 9223372036854775808, not a number of 41 digits",
        ),
        ("completions", {"logit_bias": [1]}, "logit_bias", "logit_bias: must be an object, not a list"),
        (
            "completions",
            {"logit_bias": {"one": 1}},
            "logit_bias",
            "logit_bias.one: must match the pattern ^(0|[1-9][0-9]{0,9})$",
        ),
        ("completions", {"logit_bias": {"1": None}}, "logit_bias", "logit_bias.1: must be a number, not null"),
        ("completions", {"a-b": 1}, "a-b", "a-b: this server does not know or honour this field"),
        (
            "completions",
            {"stream": True, "stream_options": {"usage_stats": True}},
            "stream_options",
            "stream_options.usage_stats: this server does not know or honour this field",
        ),
        ("completions", {"stream_options": []}, "stream_options", "stream_options: must be an object, not a list"),
        (
            "chat",
            {"max_completion_tokens": 0},
            "max_completion_tokens",
            "max_completion_tokens: must be at least 1, not 0",
        ),
        ("chat", {"messages": None}, "messages", "messages: must be a list, not null"),
        ("chat", {"messages": []}, "messages", "messages: must have at least 1 item, and has none"),
        ("chat", {"messages": ["hello"]}, "messages", "messages.0: must be an object, not a string"),
        (
            "chat",
            {"messages": [{"role": "user", "content": 5}]},
            "messages",
            "messages.0.content: must be a string or a list of text parts, not 5",
        ),
        (
            "chat",
            {"messages": [USER, {"role": "user", "content": None}]},
            "messages",
            "messages.1: content must be given, but for an assistant's message with tool_calls",
        ),
        (
            "chat",
            {"messages": [{**USER, "tool_calls": [CALL]}]},
            "messages",
            "messages.0: tool_calls are an assistant's, and this message is the user's",
        ),
        (
            "chat",
            {"messages": [{**USER, "role": "tool"}]},
            "messages",
            "messages.0: tool_call_id must be given in a message of the role tool, and in no other",
        ),
        ("chat", {"messages": [{"content": "x"}]}, "messages", "messages.0.role: must be given"),
        (
            "chat",
            {"messages": [{"role": "function", "content": "x"}]},
            "messages",
            "messages.0.role: this server does not honour this; it takes only 'system', 'developer', 'user', "
            "'assistant' or 'tool'",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
            "messages",
            "messages.0.content.0.type: must be given",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages",
            "messages.0.content.0.type: images are not read: every model is served as text, also one that can see or "
            "hear",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}]},
            "messages",
            "messages.0.content.0.type: this server does not honour this; it takes only 'text'",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": ["hi"]}]},
            "messages",
            "messages.0.content.0: must be an object, not a string",
        ),
        (
            "chat",
            {"parallel_tool_calls": 1},
            "parallel_tool_calls",
            "parallel_tool_calls: must be true or false, not 1",
        ),
        ("chat", {"tools": [{}]}, "tools", "tools.0.type: must be given"),
        (
            "chat",
            {"tools": [{**TOOL, "type": "custom"}]},
            "tools",
            "tools.0.type: this server does not honour this; it takes only 'function'",
        ),
        (
            "chat",
            {"tools": [TOOL], "tool_choice": "any"},
            "tool_choice",
            "tool_choice: this server does not honour this; it takes only 'none', 'auto' or 'required'",
        ),
        ("chat", {"audio": "u"}, "audio", "audio: this server does not honour this field; leave it out"),
        (
            "chat",
            {"messages": [{**USER, "name": "a b"}]},
            "messages",
            "messages.0.name: must match the pattern ^[A-Za-z0-9_.-]{1,64}$",
        ),
    ],
)
def test_the_real_cause_is_told(kind: EndpointName, body: dict[str, Any], param: str, message: str) -> None:
    error = refusal(kind, {**LEAST[kind], **body})
    assert error is not None
    assert (str(error), error.param) == (message, param)


@pytest.mark.parametrize(("kind", "field"), [("completions", "prompt"), ("chat", "messages"), ("chat", "model")])
def test_a_field_that_is_missing_is_named(kind: EndpointName, field: str) -> None:
    body = {name: value for name, value in LEAST[kind].items() if name != field}
    error = refusal(kind, body)
    assert (str(error), error and error.param) == (f"{field}: must be given", field)


def nested(body: type[BaseModel], path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where each field of a body is, those of the first message and of its first part among them."""
    found: list[tuple[str | int, ...]] = []
    for attribute, field in body.model_fields.items():
        name = field.alias or attribute
        found.append((*path, name))
        for model, steps in models_in(field.annotation):
            found += nested(model, (*path, name, *steps))
    return found


def models_in(annotation: Any) -> list[tuple[type[BaseModel], tuple[int, ...]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, ())]
    within = (0,) if get_origin(annotation) is list else ()
    if not within and get_origin(annotation) not in (Union, UnionType) and not hasattr(annotation, "__metadata__"):
        return []
    return [(model, within + steps) for each in get_args(annotation) for model, steps in models_in(each)]


FIELDS = [(kind, path) for kind, body in BODIES.items() for path in nested(body)]
WRONG = [
    None, True, False, 0, -1, 1.5, 10**30, float("nan"), float("inf"), "", "x", "\ud800", "x" * 2000, [], [1], [None],
    ["x"] * 5, [[]], [[1], "x"], [{}], {}, {"a": 1}, {"1": "x"}, {"x": {"y": []}},
]  # fmt: skip


def with_value(kind: EndpointName, path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The least body, with `value` where `path` leads."""
    body: Any = json.loads(json.dumps(LEAST[kind]))
    if path[:1] == ("messages",) and "content" in path[:-1]:
        body["messages"][0]["content"] = [{"type": "text", "text": "x"}]
    if path[:1] == ("stream_options",) and len(path) > 1:
        body |= {"stream": True, "stream_options": {}}
    if path[:1] == ("response_format",) and len(path) > 1:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "n"}}
    if path[:1] in (("tools",), ("tool_choice",)) and len(path) > 1:
        body["tools"] = [json.loads(json.dumps(TOOL))]
    if path[:1] == ("tool_choice",) and len(path) > 1:
        body["tool_choice"] = json.loads(json.dumps(TOOL))
    if path[:1] == ("messages",) and "tool_calls" in path[:-1]:
        body["messages"][0] |= {"role": "assistant", "tool_calls": [json.loads(json.dumps(CALL))]}
    if path[:1] == ("structured_outputs",) and len(path) > 1:
        body["structured_outputs"] = {}
    at = body
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return dict(body)


def assert_told_plainly(error: RequestError | None, path: tuple[str | int, ...]) -> None:
    if error is None:
        return
    assert error.param == path[0]
    assert str(path[0]) in str(error)
    assert not [word for word in JARGON if word in str(error)], error
    assert len(str(error)) < 500


def test_all_fields_of_the_schema_are_walked() -> None:
    paths = {path for _, path in FIELDS}
    assert {("stop",), ("stream_options", "include_usage"), ("messages", 0, "content", 0, "type")} <= paths
    assert ("response_format", "type") in paths


@pytest.mark.parametrize(("kind", "path"), FIELDS, ids=lambda value: ".".join(map(str, value)))
def test_wrong_types_are_told_by_the_field_s_name_and_without_jargon(
    kind: EndpointName, path: tuple[str | int, ...]
) -> None:
    refused = 0
    for value in WRONG:
        error = refusal(kind, with_value(kind, path, value))
        assert_told_plainly(error, path)
        refused += error is not None
    assert refused > len(WRONG) / 4


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(where=st.sampled_from(FIELDS), value=ANYTHING)
@settings(max_examples=300)
def test_whatever_stands_in_a_field_is_told_in_words(
    where: tuple[EndpointName, tuple[str | int, ...]], value: object
) -> None:
    kind, path = where
    assert_told_plainly(refusal(kind, with_value(kind, path, value)), path)


def test_pairs_of_shapes_are_told_without_jargon() -> None:
    for first, second in product(WRONG, repeat=2):
        for field in ("prompt", "stop"):
            assert_told_plainly(
                refusal("completions", with_value("completions", (field,), [first, second])), (field,)
            )


class Settings(BaseModel):
    rpm: int


def test_other_routes_tell_in_the_same_words() -> None:
    app = FastAPI()
    errors.install(app)

    @app.post("/set")
    async def set_it(body: Settings) -> None:
        raise AssertionError(body)

    async def post(**sent: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post("/set", **sent)

    def told(**sent: Any) -> tuple[str, str | None]:
        error = asyncio.run(post(**sent)).json()["error"]
        return error["message"], error["param"]

    assert told(json={}) == ("rpm: must be given", "rpm")
    assert told(json=[1]) == ("body: must be an object, not a list", None)
    message = "the body must be JSON, and the header Content-Type must be application/json"
    assert told(content=b"{}", headers={"Content-Type": "text/plain"}) == (message, None)
    assert told() == ("body: must be given", None)
