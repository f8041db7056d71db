"""The Responses API, with the real `openai` client of a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from tests.integration.servers import MODEL, Server

SCHEMA: Any = {
    "type": "object",
    "properties": {"place": {"enum": ["sea", "shore"]}},
    "required": ["place"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells it.",
    "parameters": SCHEMA,
    "strict": True,
}


class Place(BaseModel, extra="forbid"):
    name: Literal["sea", "shore"]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    asked = {"model": MODEL, "input": "How is the sea?", "max_output_tokens": 12, "temperature": 0, **fields}
    return client.responses.create(**asked)


def test_a_response_and_its_stream_are_the_same(client: openai.OpenAI) -> None:
    whole = ask(client)
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert whole.usage.output_tokens == 12
    asked: Any = {"model": MODEL, "input": "How is the sea?", "max_output_tokens": 12, "temperature": 0}
    with client.responses.stream(**asked) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == whole.output_text


def test_a_tool_is_called_and_its_result_taken(client: openai.OpenAI) -> None:
    asked: Any = {"tools": [TOOL], "max_output_tokens": 100}
    response = ask(client, tool_choice="required", parallel_tool_calls=False, **asked)
    (call,) = response.output
    assert (response.status, call.type, call.name) == ("completed", "function_call", "weather")
    jsonschema.validate(json.loads(call.arguments), SCHEMA)
    turns = [
        {"role": "user", "content": "How is the sea?"},
        call,
        {"type": "function_call_output", "call_id": call.call_id, "output": "calm"},
    ]
    assert ask(client, input=turns, tools=[TOOL], tool_choice="none").output_text


def test_an_answer_is_parsed_into_the_client_s_own_class(client: openai.OpenAI) -> None:
    response = client.responses.parse(model=MODEL, input="Where?", text_format=Place, max_output_tokens=100)
    assert isinstance(response.output_parsed, Place)


def test_a_conversation_goes_on_by_the_id_of_a_response(client: openai.OpenAI) -> None:
    first = ask(client, store=True)
    second = ask(client, input="And the shore?", previous_response_id=first.id)
    turns = [
        {"role": "user", "content": "How is the sea?"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And the shore?"},
    ]
    assert second.output_text == ask(client, input=turns).output_text
    assert client.responses.retrieve(first.id).output_text == first.output_text
    assert len(client.responses.input_items.list(first.id).data) == 2
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="no such response"):
        ask(client, previous_response_id=first.id)
