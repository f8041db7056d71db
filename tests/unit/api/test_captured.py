"""The fields of requests that real clients sent, each of which must be taken but for what the model cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from faasmoe.api.parsed_request import Bounds
from faasmoe.readers.parser import RequestParser
from tests.reading import Letters

CAPTURED = Path(__file__).parents[4] / "shared" / "cases" / "api" / "captured.json"
ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
}
PARSER = RequestParser(Letters(), Bounds("faasmoe-demo", 256, 100_000, aliases=("long", "nope")))
SCHEMA = {"type": "object", "properties": {}}
TOOLS: dict[str, Any] = {
    "chat": {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
    "responses": {"type": "function", "name": "f", "parameters": SCHEMA},
    "messages": {"name": "f", "input_schema": SCHEMA},
}


def messages(roles: list[list[Any]]) -> list[dict[str, Any]]:
    """Messages of these roles, each with its form of content and the names of its further fields."""
    further = {
        "name": "n",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        "tool_call_id": "c",
        "reasoning_content": "x",
    }
    contents = {"str": "x", "list": [{"type": "text", "text": "x"}]}
    return [
        {"role": role, "content": contents.get(form), **{name: further[name] for name in names if name in further}}
        for role, form, names in roles
    ]


def value(kind: str, name: str, told: str, roles: list[list[Any]]) -> Any:
    """A value in the place of one that was left out of the record, such as "(list of 3)"."""
    count = int(told.rpartition(" ")[2].rstrip(")"))
    plausible = {
        "messages": messages(roles),
        "tools": [TOOLS.get(kind)] * (count > 0),
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        "metadata": {"user_id": "u"},
        "client_metadata": {"a": "b"},
        "system": [{"type": "text", "text": "x"}],
        "input": [{"role": role, "content": "x"} for role, _, _ in roles],
        "prompt": ["x"] * count,
    }
    return "x" * count if told.startswith("(str") else plausible[name]


def requests() -> list[Any]:
    if not CAPTURED.exists():
        return []
    found = []
    for number, request in enumerate(json.loads(CAPTURED.read_text())):
        kind = ENDPOINTS.get(request["path"].partition("?")[0])
        if kind:
            found.append(pytest.param(kind, request, id=f"{number}-{request['client']}"))
    return found


@pytest.mark.skipif(not CAPTURED.exists(), reason="needs shared/cases/api/captured.json beside the checkout")
@pytest.mark.parametrize(("kind", "request_"), requests())
def test_what_a_client_sent_is_taken(kind: str, request_: dict[str, Any]) -> None:
    roles = request_["roles"] or [["user", "str", []]]
    body = {
        name: value(kind, name, given, roles) if isinstance(given, str) and given.startswith("(") else given
        for name, given in request_["fields"].items()
    }
    assert PARSER.parse(kind, json.dumps(body).encode()).prompts is not None
