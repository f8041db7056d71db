from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import message_create_params
from pydantic import ValidationError

from faasmoe.api.anthropic.schema import CountBody, MessagesBody
from faasmoe.api.bodies.validation_errors import refusal_of
from faasmoe.errors import RequestError
from faasmoe.protocol.request import SamplingParams

LEAST: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def body(**fields: Any) -> MessagesBody:
    return MessagesBody.model_validate({**LEAST, **fields})


def test_blocks_become_messages_of_a_chat() -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And?"},
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True},
            ],
        },
        {"role": "system", "content": "Be brief."},
    ]
    system = [
        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Two."},
    ]
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert body(messages=turns, system=system, tools=[TOOL]).chat().messages == [
        {"role": "system", "content": "One.\nTwo."},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "t1"},
        {"role": "tool", "content": "Error: no", "tool_call_id": "t2"},
        {"role": "user", "content": "And?"},
        {"role": "system", "content": "Be brief."},
    ]


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (None, ("auto", None, True)),
        ({"type": "auto"}, ("auto", None, True)),
        ({"type": "any", "disable_parallel_tool_use": True}, ("required", None, False)),
        ({"type": "none"}, ("none", None, True)),
        ({"type": "tool", "name": "f"}, ("auto", "f", True)),
    ],
)
def test_choices_of_tools(choice: Any, wanted: tuple[str, str | None, bool]) -> None:
    chat = body(tools=[TOOL], tool_choice=choice).chat()
    assert (chat.choice, chat.named, chat.parallel) == wanted
    assert chat.tools == [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def test_sampling_and_reasoning() -> None:
    asked = body(temperature=0.5, top_p=0.9, top_k=4, stop_sequences=["x"], metadata={"user_id": "u"})
    params = asked.sampling({"min_p": 0.1, "top_k": 9})
    assert params == SamplingParams(5, temperature=0.5, top_p=0.9, top_k=4, min_p=0.1, stop=("x",))
    assert asked.end_user.name == "u"
    thinking = body(thinking={"type": "enabled", "budget_tokens": 9}, output_config={"effort": "low"}).chat()
    assert (thinking.thinking, thinking.budget, thinking.effort) == (True, 9, "low")
    assert body(thinking={"type": "disabled"}).chat().thinking is False
    schema = {"type": "object", "properties": {}}
    assert body(output_config={"format": {"type": "json_schema", "schema": schema}}).chat().grammar is not None


def test_what_claude_code_sends_is_taken() -> None:
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    assert body(
        thinking={"type": "adaptive"},
        context_management=edits,
        output_config={"effort": "high"},
        metadata={"user_id": "u" * 200},
        tools=[{**TOOL, "cache_control": {"type": "ephemeral"}, "eager_input_streaming": True}],
        stream=True,
        max_tokens=32000,
    )


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"max_tokens": None}, "max_tokens", "must be an integer"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "takes only 'user', 'assistant' or 'system'"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages", "images are not read"),
        ({"messages": [{"role": "user", "content": [{"type": "odd"}]}]}, "messages", "an object whose type is one of"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "i", "name": "f", "input": {}}]}]},
            "messages",
            "the assistant's",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "i"}]}]},
            "messages",
            "is the user's",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools", "takes only 'custom'"),
        ({"no_such": 1}, "no_such", "does not know"),
        ({"mcp_servers": [{}]}, "mcp_servers", "leave it out or empty"),
        ({"tools": [TOOL, TOOL]}, "tools", "two tools have the same name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "has none to call"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice", "not among tools"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_by_its_field(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises((ValidationError, RequestError)) as caught:
        body(**fields).chat()
    error = caught.value
    told = refusal_of(error.errors(include_url=False)) if isinstance(error, ValidationError) else error
    assert isinstance(told, RequestError)
    assert told.param == param
    assert message in str(told)


def test_every_field_of_anthropic_s_client_is_known() -> None:
    theirs = set(message_create_params.MessageCreateParamsBase.__annotations__) | {"stream"}
    assert theirs - set(MessagesBody.model_fields) <= {"user_profile_id", "diagnostics", "workspace_id"}
    assert "max_tokens" not in CountBody.model_fields
