"""Responses that are held to a schema, a pattern, a choice or a grammar, by the real `openai` client of a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.integration.servers import MODEL, Server

MESSAGES: Any = [{"role": "user", "content": "Tell me of the sea."}]


class Place(BaseModel, extra="forbid"):  # the demo model would add fields for ever
    name: Literal["sea", "shore"]
    depth: int = Field(ge=0, le=999)  # the demo model would write digits for ever
    calm: bool


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    asked = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 200, "seed": 5, **fields}
    return client.chat.completions.create(**asked)


def test_a_response_is_parsed_into_the_client_s_own_class(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Place, max_completion_tokens=200, seed=5
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Place)


def test_a_streamed_response_is_the_whole_one(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": Place.model_json_schema()}}
    whole = chat(client, response_format=form).choices[0].message.content
    chunks = chat(client, response_format=form, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    jsonschema.validate(json.loads(whole), Place.model_json_schema())


def test_patterns_choices_and_grammars_are_followed(client: openai.OpenAI) -> None:
    def held(**outputs: Any) -> str:
        return str(chat(client, extra_body={"structured_outputs": outputs}).choices[0].message.content)

    assert re.fullmatch(r"\d{3}-[a-z]+\.", held(regex=r"\d{3}-[a-z]{1,9}\."))
    assert held(choice=["the sea", "the shore"]) in ("the sea", "the shore")
    assert re.fullmatch(r"<[ab]{3}>", held(grammar='root ::= "<" [ab] [ab] [ab] ">"'))
    completion = client.completions.create(
        model=MODEL, prompt="x", max_tokens=50, extra_body={"structured_outputs": {"json": {"enum": [17]}}}
    )
    assert json.loads(completion.choices[0].text) == 17


def test_requests_beside_structured_ones_get_what_they_get_alone(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": Place.model_json_schema()}}
    alone = chat(client, max_completion_tokens=30, temperature=0).choices[0].message.content
    with ThreadPoolExecutor(6) as pool:
        held = [pool.submit(chat, client, response_format=form, seed=seed) for seed in range(3)]
        beside = [pool.submit(chat, client, max_completion_tokens=30, temperature=0) for _ in range(3)]
        assert {each.result().choices[0].message.content for each in beside} == {alone}
        for each in held:
            jsonschema.validate(json.loads(each.result().choices[0].message.content), Place.model_json_schema())


@pytest.mark.parametrize("schema", [{"not": {}}, {"$ref": "http://example.org/x"}, {"type": "strang"}])
def test_a_schema_that_cannot_be_honoured_is_refused(client: openai.OpenAI, schema: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="response_format cannot be honoured") as caught:
        chat(client, response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    assert caught.value.param == "response_format"
