from __future__ import annotations

import re
from dataclasses import fields
from inspect import get_annotations
from pathlib import Path

import pytest
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionMessage,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as CompletionParams
from pydantic import BaseModel, ValidationError

from faasmoe.api.bodies import grammars
from faasmoe.api.openai.messages import Message, TextPart
from faasmoe.api.openai.schema import ChatBody, CompletionBody, GenerationBody, StreamOptions
from faasmoe.api.parsed_request import EndUser
from faasmoe.errors import RequestError
from faasmoe.protocol.request import SamplingParams

PROMPT = {"model": "m", "prompt": "p"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize("prompt", ["text", ["a", "b"], [1, 2], [[1], [2]]])
def test_all_forms_of_prompts_are_taken(prompt: object) -> None:
    assert CompletionBody.model_validate({"model": "m", "prompt": prompt}).prompt == prompt


@pytest.mark.parametrize(
    "extra",
    [
        {"max_tokens": "5"},
        {"temperature": "hot"},
        {"stream": "yes"},
        {"n": 0},
        {"n": 129},
        {"echo": 1},
        {"logprobs": True},
        {"logit_bias": {"1": None}},
        {"logit_bias": {"one": 2.0}},
        {"logit_bias": {"01": 2.0}},
        {"logit_bias": {"1_0": 2.0}},
        {"logit_bias": {"٣": 2.0}},
        {"seed": 2**64},
        {"stop": [1]},
        {"prompt": {"text": "p"}},
        {"prompt": "half a \ud83c pair"},
        {"prompt": None},
        {"no_such_field": None},
        {"user": "u" * 257},
        {"metadata": {"k": 1}},
        {"metadata": {str(i): "v" for i in range(17)}},
        {"suffix": "end"},
        {"stream": True, "stream_options": {"include_usage": True, "more": 1}},
        {"stream": True, "stream_options": {"include_obfuscation": True}},
    ],
)
def test_what_is_not_honoured_is_refused(extra: dict) -> None:
    with pytest.raises(ValidationError):
        CompletionBody.model_validate({**PROMPT, **extra})


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"best_of": 2}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
    ],
)
def test_fields_that_contradict_others_are_named(extra: dict, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        CompletionBody.model_validate({**PROMPT, **extra})
    assert caught.value.param == field


NULLABLE = [name for name in CompletionBody.model_fields if name not in {"model", "prompt"}]


@pytest.mark.parametrize(
    "extra",
    [
        {"n": 1, "best_of": 1},
        {"presence_penalty": 0, "frequency_penalty": 0.0},
        {"logit_bias": {}},
        {"echo": False},
        {"temperature": 1},
        {"suffix": ""},
        dict.fromkeys(NULLABLE),
    ],
)
def test_neutral_values_change_nothing(extra: dict) -> None:
    assert CompletionBody.model_validate({**PROMPT, **extra}).sampling(3) == SamplingParams(3)


def test_everything_honoured_reaches_the_orchestrator() -> None:
    honoured = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "seed": 4,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
        "ignore_eos": True,
        "echo": True,
        "logprobs": 3,
    }
    body = CompletionBody.model_validate({**PROMPT, **honoured, "stop": "x", "logit_bias": {"12": -5}, "n": 2})
    assert body.sampling(3) == SamplingParams(3, **honoured, stop=("x",), logit_bias=((12, -5.0),))
    assert body.choices == 2
    assert {f.name for f in fields(SamplingParams)} == {
        *(*honoured, "max_tokens", "stop", "logit_bias"),
        *("grammar", "skip_special_tokens", "thinking"),  # of what the response is to be
    }


@pytest.mark.parametrize(
    ("asked", "logprobs"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 4}, 4),
    ],
)
def test_a_chat_asks_for_logprobs_with_two_fields(asked: dict, logprobs: int | None) -> None:
    assert ChatBody.model_validate({**CHAT, **asked}).sampling(3).logprobs == logprobs


def test_alternatives_without_logprobs_are_refused() -> None:
    with pytest.raises(RequestError) as caught:
        ChatBody.model_validate({**CHAT, "top_logprobs": 2})
    assert caught.value.param == "top_logprobs"


@pytest.mark.parametrize(
    "extra",
    [
        {"response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "modalities": ["text"]},
        {
            "service_tier": "auto",
            "verbosity": "medium",
            "store": False,
            "parallel_tool_calls": True,
            "metadata": {},
        },
    ],
)
def test_a_chat_s_neutral_values_are_taken(extra: dict) -> None:
    assert ChatBody.model_validate({**CHAT, **extra}).sampling(3) == SamplingParams(3)


@pytest.mark.parametrize(
    ("body", "known"),
    [(CompletionBody, CompletionParams), (ChatBody, ChatParams)],
)
def test_every_field_of_openai_has_a_treatment(body: type[BaseModel], known: type) -> None:
    assert set(get_annotations(known)) | {"stream"} <= set(body.model_fields)


@pytest.mark.parametrize(
    ("treated", "known"),
    [
        (StreamOptions, ChatCompletionStreamOptionsParam),
        (TextPart, ChatCompletionContentPartTextParam),
        (Message, ChatCompletionAssistantMessageParam),
        (Message, ChatCompletionUserMessageParam),
        (Message, ChatCompletionSystemMessageParam),
        (Message, ChatCompletionDeveloperMessageParam),
    ],
)
def test_so_has_every_field_within_them(treated: type[BaseModel], known: type) -> None:
    assert set(get_annotations(known)) <= set(treated.model_fields)


def test_the_table_in_the_documents_is_complete() -> None:
    text = (Path(__file__).parents[4] / "docs" / "api.md").read_text()
    for heading, body in (("completions", CompletionBody), ("chat/completions", ChatBody)):
        section = text.partition(f"## POST /v1/{heading}\n")[2].partition("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])} == set(
            body.model_fields
        )
        for row in rows:
            assert row.split("|")[2].strip() in {"honoured", "in part", "neutral only", "taken"}


ASKED_OF_CHATS = {
    "audio": [{"voice": "alloy", "format": "mp3"}, {}],
    "function_call": ["auto", {"name": "f"}],
    "functions": [[{"name": "f"}]],
    "modalities": [["text", "audio"], ["audio"], []],
    "moderation": [{"model": "omni-moderation-latest"}],
    "prediction": [{"type": "content", "content": "x"}],
    "prompt_cache_options": [{}],
    "service_tier": ["scale", ""],
    "stream_options": [{"include_usage": True, "include_obfuscation": True}, []],
    "verbosity": ["low", "high"],
    "web_search_options": [{}],
}


def test_what_is_neutral_only_is_refused_otherwise_by_name() -> None:
    text = (Path(__file__).parents[4] / "docs" / "api.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if "| neutral only |" in line]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert listed == {*ASKED_OF_CHATS, "suffix"} - {"service_tier", "stream_options"}
    bodies = [(ChatBody, CHAT, name, value) for name, values in ASKED_OF_CHATS.items() for value in values]
    bodies += [(CompletionBody, PROMPT, name, "x") for name in ("suffix",)]
    for body, least, name, value in bodies:
        with pytest.raises(ValidationError) as caught:
            body.model_validate({**least, "stream": True, name: value})
        assert {error["loc"][0] for error in caught.value.errors()} == {name}, (name, value)


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("body", "least", "fields", "grammar"),
    [
        (ChatBody, CHAT, {"response_format": {"type": "text"}}, None),
        (ChatBody, CHAT, {"response_format": {"type": "json_object"}}, grammars.json_object("f")),
        (
            ChatBody,
            CHAT,
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": SCHEMA},
                }
            },
            grammars.json_schema(SCHEMA, "f"),
        ),
        (CompletionBody, PROMPT, {"structured_outputs": {"json": SCHEMA}}, grammars.json_schema(SCHEMA, "f")),
        (CompletionBody, PROMPT, {"structured_outputs": {"regex": "[a-z]+"}}, grammars.regex("[a-z]+", "f")),
        (ChatBody, CHAT, {"structured_outputs": {"choice": ["x", "y"]}}, grammars.choice(["x", "y"], "f")),
        (ChatBody, CHAT, {"structured_outputs": {"json_object": True}}, grammars.json_object("f")),
        (
            ChatBody,
            CHAT,
            {"structured_outputs": {"grammar": 'start: "x"'}},
            grammars.context_free('start: "x"', "f"),
        ),
    ],
)
def test_what_a_response_has_to_look_like_becomes_a_grammar(
    body: type[GenerationBody], least: dict, fields: dict, grammar: str | None
) -> None:
    assert body.model_validate({**least, **fields}).sampling(1).grammar == grammar


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"structured_outputs": {}}, "has 0 of"),
        ({"structured_outputs": {"json_object": False}}, "has 0 of"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "has 2 of"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "give one of them",
        ),
    ],
)
def test_a_response_has_one_form(fields: dict, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        ChatBody.model_validate({**CHAT, **fields})


def test_messages_become_role_and_text() -> None:
    body = ChatBody.model_validate(
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
        }
    )
    assert [m.plain() for m in body.messages] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "ab"},
    ]


def test_an_answer_can_be_sent_back() -> None:
    answer = ChatCompletionMessage(role="assistant", content="a", tool_calls=[], annotations=[]).model_dump()
    body = ChatBody.model_validate({**CHAT, "messages": [answer]})
    assert body.messages[0].plain() == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(("least", "body"), [(PROMPT, CompletionBody), (CHAT, ChatBody)])
def test_what_is_said_of_the_end_user_changes_no_sampling(least: dict, body: type[GenerationBody]) -> None:
    about = {"user": "u1", "metadata": {"team": "a"}, "prompt_cache_key": "k", "store": True}
    read = body.model_validate({**least, **about, "safety_identifier": "s"})
    assert read.end_user == EndUser("u1", {"team": "a"})
    assert read.sampling(3) == SamplingParams(3)
    assert body.model_validate({**least, "safety_identifier": "s"}).end_user == EndUser("s", {})


def test_no_probability_at_all_is_greedy() -> None:
    body = CompletionBody.model_validate({**PROMPT, "top_p": 0, "temperature": 0.7})
    assert body.sampling(3) == SamplingParams(3, temperature=0.0)


@pytest.mark.parametrize(
    ("options", "usage"),
    [
        (None, "none"),
        ({"include_usage": True}, "last"),
        ({"include_usage": True, "continuous_usage_stats": True}, "each"),
        ({"continuous_usage_stats": True}, "none"),
    ],
)
def test_options_of_streams_may_come_without_a_stream(options: dict | None, usage: str) -> None:
    assert ChatBody.model_validate({**CHAT, "stream_options": options}).stream_usage == usage


def test_a_name_goes_to_the_template() -> None:
    body = ChatBody.model_validate({**CHAT, "messages": [{"role": "user", "content": "x", "name": "me"}]})
    assert body.messages[0].plain() == {"role": "user", "content": "x", "name": "me"}


def test_two_names_of_one_limit_are_refused() -> None:
    assert ChatBody.model_validate({**CHAT, "max_tokens": 3}).limit == 3
    assert ChatBody.model_validate({**CHAT, "max_completion_tokens": 4}).limit == 4
    with pytest.raises(RequestError, match="give one of them"):
        ChatBody.model_validate({**CHAT, "max_tokens": 3, "max_completion_tokens": 4})


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "robot", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        [{"role": "tool", "content": "x"}],
        [{"role": "assistant", "content": None, "tool_calls": [{}]}],
        [{"role": "user", "content": "x", "name": "<|im_start|>"}],
    ],
)
def test_messages_that_cannot_be_served_are_refused(messages: list) -> None:
    with pytest.raises(ValidationError):
        ChatBody.model_validate({"model": "m", "messages": messages})
