"""Anthropic's API, with the real `anthropic` client of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import jsonschema
import pytest

from tests.integration.servers import MODEL, Server

SCHEMA: Any = {
    "type": "object",
    "properties": {"place": {"enum": ["sea", "shore"]}},
    "required": ["place"],
    "additionalProperties": False,
}
TOOL: Any = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
MESSAGES: Any = [{"role": "user", "content": "How is the sea?"}]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0) as made:
        yield made


GREEDY: Any = {"temperature": 0}  # which the client's newer versions do not name


def ask(client: anthropic.Anthropic, **fields: Any) -> Any:
    return client.messages.create(**{"model": MODEL, "messages": MESSAGES, "max_tokens": 12, **fields})


def test_a_message_and_its_stream_are_the_same(client: anthropic.Anthropic) -> None:
    whole = ask(client, extra_body=GREEDY)
    assert (whole.role, whole.stop_reason, whole.usage.output_tokens) == ("assistant", "max_tokens", 12)
    asked: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 12, "extra_body": GREEDY}
    with client.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text
    assert final.usage.output_tokens == 12
    assert whole._request_id


def test_a_tool_is_called_and_its_result_taken(client: anthropic.Anthropic) -> None:
    asked: Any = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "weather"}, "max_tokens": 100}
    message = ask(client, **asked)
    (block,) = message.content
    assert (message.stop_reason, block.type, block.name) == ("tool_use", "tool_use", "weather")
    jsonschema.validate(block.input, SCHEMA)
    with client.messages.stream(model=MODEL, messages=MESSAGES, **asked) as stream:
        (streamed,) = stream.get_final_message().content
    jsonschema.validate(streamed.input, SCHEMA)
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "calm"}]},
    ]
    assert ask(client, messages=turns, tools=[TOOL]).content


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    text = ask(client, extra_body=GREEDY, max_tokens=40).content[0].text
    stop = text.split()[2]
    message = ask(client, extra_body=GREEDY, max_tokens=40, stop_sequences=["never there", stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert message.content[0].text == text[: text.index(stop)]


def test_tokens_are_counted_without_a_step(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES, tools=[TOOL], system="Be brief.")
    usage = ask(client, tools=[TOOL], system="Be brief.").usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_errors_have_anthropic_s_shape(client: anthropic.Anthropic, server: Server) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(client, model="no-such")
    assert missing.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        ask(client, messages=[{"role": "user", "content": "sea " * 9000}])
    answer = httpx.post(f"{server.url}/v1/messages", json={"model": MODEL})
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert answer.json()["request_id"] == answer.headers["request-id"]


def test_a_server_is_found_by_its_root(server: Server) -> None:
    assert httpx.head(f"{server.url}/").status_code == 200
