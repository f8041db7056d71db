from __future__ import annotations

from typing import Any

from faasmoe.model.text.call_messages import put


def call(its: str, name: str) -> dict[str, Any]:
    return {"id": its, "type": "function", "function": {"name": name, "arguments": {}}}


def result(its: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": its, "content": content}


USER = {"role": "user", "content": "So?"}
BOTH = {
    "role": "assistant",
    "content": "I look.",
    "reasoning_content": "Hm.",
    "tool_calls": [call("a", "f"), call("b", "g")],
}
TURNS = [USER, BOTH, result("b", "second"), result("x", "whose"), result("a", "first"), USER]


def test_ids_have_names_and_count_over_the_conversation() -> None:
    again = {"role": "assistant", "content": "", "tool_calls": [call("a", "h")]}
    found = put([*TURNS, again, result("a", "third")], "named")
    ids = [c["id"] for message in found for c in message.get("tool_calls", ())]
    assert ids == ["functions.f:0", "functions.g:1", "functions.h:2"]
    results = [message["tool_call_id"] for message in found if message["role"] == "tool"]
    assert results == ["functions.g:1", "x", "functions.f:0", "functions.h:2"]


def test_calls_stand_apart_each_before_its_result() -> None:
    found = put(TURNS, "apart")
    assert found == [
        USER,
        {"role": "assistant", "content": "I look."},
        {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [call("a", "f")]},
        result("a", "first"),
        {"role": "assistant", "content": "", "tool_calls": [call("b", "g")]},
        result("b", "second"),
        result("x", "whose"),
        USER,
    ]


def test_given_messages_stay_as_they_are() -> None:
    assert put(TURNS, "given") is TURNS
