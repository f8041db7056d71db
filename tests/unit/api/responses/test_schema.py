from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import response_create_params
from pydantic import ValidationError

from faasmoe.api.bodies.validation_errors import refusal_of
from faasmoe.api.responses.schema import ResponsesBody
from faasmoe.errors import RequestError

LEAST: dict[str, Any] = {"model": "m", "input": "Hi"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "p",
    "format": {"type": "grammar", "definition": "start: X"},
}


def body(**fields: Any) -> ResponsesBody:
    return ResponsesBody.model_validate({**LEAST, **fields})


def test_a_text_is_the_user_s_message() -> None:
    chat = body(instructions="Be brief.").chat()
    assert chat.messages == [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_items_become_messages_of_a_chat() -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "One."}], "type": "message"},
        {"role": "user", "content": "So?"},
        {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}', "id": "fc"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "a\nb"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "done"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
    ]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
        {"id": "c2", "type": "function", "function": {"name": "patch", "arguments": {"input": "a\nb"}}},
    ]
    assert body(input=items, tools=[TOOL, PATCH]).chat().messages == [
        {"role": "developer", "content": "One."},
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        {"role": "tool", "content": "done", "tool_call_id": "c2"},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "so"},
        {"role": "user", "content": "ab"},
    ]


def test_tools_are_functions_and_hosted_ones_are_not_offered() -> None:
    chat = body(tools=[TOOL, PATCH, {"type": "web_search", "external_web_access": True}]).chat()
    assert [tool["function"]["name"] for tool in chat.tools] == ["f", "patch"]
    assert chat.tools[1]["function"]["description"] == "p\nstart: X"
    assert body(tools=[PATCH]).custom == ["patch"]


@pytest.mark.parametrize(
    ("choice", "wanted", "tools"),
    [
        ("required", ("required", None), 2),
        ({"type": "function", "name": "f"}, ("auto", "f"), 2),
        ({"type": "custom", "name": "patch"}, ("auto", "patch"), 2),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            ("required", None),
            1,
        ),
    ],
)
def test_choices_of_tools(choice: Any, wanted: tuple[str, str | None], tools: int) -> None:
    chat = body(tools=[TOOL, PATCH], tool_choice=choice).chat()
    assert ((chat.choice, chat.named), len(chat.tools)) == (wanted, tools)


def test_what_codex_sends_is_taken() -> None:
    assert body(
        stream=True,
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"summary": "auto"},
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k" * 36,
        client_metadata={"a": "b"},
    )


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"input": []}, "input", "at least 1"),
        ({"input": 5}, "input", "must be a string or a list of items"),
        ({"input": [{"type": "odd"}]}, "input", "an object whose type is one of message"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input", "images are not read"),
        ({"tools": [{"type": "odd"}]}, "tools", "an object whose type is function, custom"),
        ({"tools": [TOOL, TOOL]}, "tools", "two tools have the same name"),
        ({"tool_choice": "required"}, "tool_choice", "has none to call"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice", "not among tools"),
        ({"background": True}, "background", "takes only false"),
        ({"conversation": "c"}, "conversation", "leave it out"),
        ({"no_such": 1}, "no_such", "does not know"),
        ({"text": {"format": {"type": "xml"}}}, "text", "an object whose type is one of text"),
    ],
)
def test_what_is_refused_is_told_by_its_field(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises((ValidationError, RequestError)) as caught:
        body(**fields).chat()
    error = caught.value
    told = refusal_of(error.errors(include_url=False)) if isinstance(error, ValidationError) else error
    assert isinstance(told, RequestError)
    assert told.param == param
    assert message in str(told)


def test_every_field_of_openai_s_client_is_known() -> None:
    theirs = set(response_create_params.ResponseCreateParamsBase.__annotations__) | {"stream"}
    newer = {"access_programs", "background_options", "context_management", "image", "moderation"}
    assert theirs - set(ResponsesBody.model_fields) <= {*newer, "prompt_cache_options"}
