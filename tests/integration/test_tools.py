"""Tools by the real `openai` client of a real server, whose model calls what its grammar makes it call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from tests.integration.servers import MODEL, Server

PLACE = {
    "type": "object",
    "properties": {"place": {"enum": ["sea", "shore"]}, "days": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["place", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": PLACE}}
TIME = {"type": "function", "function": {"name": "time"}}
MESSAGES: Any = [{"role": "user", "content": "How is it at the sea?"}]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    asked = {
        "model": MODEL,
        "messages": MESSAGES,
        "tools": [WEATHER, TIME],
        "max_tokens": 200,
        "seed": 3,
        **fields,
    }
    return client.chat.completions.create(**asked)


NAMED = {"type": "function", "function": {"name": "weather"}}


def test_a_named_tool_is_called_with_arguments_that_fit_its_schema(client: openai.OpenAI) -> None:
    choice = ask(client, tool_choice=NAMED).choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content, call.function.name) == ("tool_calls", None, "weather")
    jsonschema.validate(json.loads(call.function.arguments), PLACE)


def test_a_streamed_call_is_the_whole_one(client: openai.OpenAI) -> None:
    (whole,) = ask(client, tool_choice=NAMED).choices[0].message.tool_calls
    chunks = [chunk.choices[0] for chunk in ask(client, tool_choice=NAMED, stream=True)]
    deltas = [delta for chunk in chunks for delta in chunk.delta.tool_calls or ()]
    assert (deltas[0].index, deltas[0].type, deltas[0].function.name) == (0, "function", "weather")
    assert deltas[0].id.startswith("call_")
    assert {delta.id for delta in deltas[1:]} == {None}
    assert len(deltas) > 2
    assert "".join(delta.function.arguments or "" for delta in deltas) == whole.function.arguments
    assert (chunks[0].delta.role, chunks[-1].finish_reason) == ("assistant", "tool_calls")


def test_an_agent_s_loop_goes_round(client: openai.OpenAI) -> None:
    turns = list(MESSAGES)
    for _ in range(2):
        message = ask(client, messages=turns, tool_choice="required", parallel_tool_calls=False).choices[0].message
        (call,) = message.tool_calls
        turns += [message, {"role": "tool", "tool_call_id": call.id, "content": "calm"}]
    last = ask(client, messages=turns, tool_choice="none", max_tokens=4).choices[0]
    assert (last.finish_reason, last.message.tool_calls) == ("length", None)


def test_a_model_that_writes_freely_answers_in_text(client: openai.OpenAI) -> None:
    beside = ask(client, temperature=0, max_tokens=12).choices[0]
    assert beside.message.tool_calls is None
    assert beside.message.content


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
        ({"tools": [TIME, TIME]}, "tools"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"extra_body": {"chat_template_kwargs": {"chat_template": "x"}}}, "chat_template_kwargs"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **fields)
    assert caught.value.param == param
