"""Items of the Responses API: what a conversation is made of, and their form for chat templates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from faasmoe.api.bodies.fields import MAX_MESSAGES, MAX_PARTS, Body, CallId, Text, ToolName
from faasmoe.api.bodies.shapes import LIST, NO_SHAPE, TEXT, read_as_text, shape_of, text_or_list
from faasmoe.api.chat.json_scanner import json_object

_READABLE = read_as_text(
    {
        "input_image": "images",
        "input_file": "files",
        "input_audio": "sounds",
        "computer_screenshot": "images",
    }
)
Status = Literal["in_progress", "completed", "incomplete"]
ItemId = Annotated[Text, Field(max_length=256)]


class ItemText(Body):
    """A part of a message's content, or of a call's output."""

    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text"]
    text: Text
    # of parts that this server has sent: taken
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class ItemRefusal(Body):
    """A part in which an assistant has refused."""

    type: Literal["refusal"]
    refusal: Text


def _part_kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return "(refusal)" if kind == "refusal" else "(part)" if isinstance(value, dict) else None


Part = Annotated[
    Annotated[ItemText, Tag("(part)")] | Annotated[ItemRefusal, Tag("(refusal)")],
    Discriminator(_part_kind, NO_SHAPE, "an object with a type"),
    _READABLE,
]
Content = Annotated[
    Annotated[Text, Tag(TEXT)] | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True), Tag(LIST)],
    text_or_list("a string or a list of parts"),
]


class MessageItem(Body):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: ItemId | None = None
    status: Status | None = None
    phase: Text | None = None


class CallItem(Body):
    """A call of a function."""

    type: Literal["function_call"]
    call_id: CallId
    name: ToolName
    arguments: Text
    id: ItemId | None = None
    status: Status | None = None
    namespace: Text | None = None


class CallOutputItem(Body):
    """What came of a call of a function."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: Content
    id: ItemId | None = None
    status: Status | None = None


class CustomCallItem(Body):
    """A call of a tool that takes text."""

    type: Literal["custom_tool_call"]
    call_id: CallId
    name: ToolName
    input: Text
    id: ItemId | None = None
    status: Status | None = None
    namespace: Text | None = None


class CustomOutputItem(Body):
    """What came of such a call."""

    type: Literal["custom_tool_call_output"]
    call_id: CallId
    output: Content
    id: ItemId | None = None
    status: Status | None = None
    name: ToolName | None = None


class ReasoningItem(Body):
    """What the assistant has thought."""

    type: Literal["reasoning"]
    id: ItemId | None = None
    summary: Annotated[list[ItemText], Field(max_length=MAX_PARTS, default_factory=list)]
    content: Annotated[list[ItemText], Field(max_length=MAX_PARTS)] | None = None
    encrypted_content: Text | None = None  # of another server: taken
    status: Status | None = None


_ITEMS: dict[str, type[Body]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": CallOutputItem,
    "custom_tool_call": CustomCallItem,
    "custom_tool_call_output": CustomOutputItem,
    "reasoning": ReasoningItem,
}


def _item_kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    kind = value.get("type", "message")
    return shape_of(kind) if isinstance(kind, str) and kind in _ITEMS else None


Item = Annotated[
    Annotated[MessageItem, Tag(shape_of("message"))]
    | Annotated[CallItem, Tag(shape_of("function_call"))]
    | Annotated[CallOutputItem, Tag(shape_of("function_call_output"))]
    | Annotated[CustomCallItem, Tag(shape_of("custom_tool_call"))]
    | Annotated[CustomOutputItem, Tag(shape_of("custom_tool_call_output"))]
    | Annotated[ReasoningItem, Tag(shape_of("reasoning"))],
    Discriminator(_item_kind, NO_SHAPE, f"an object whose type is one of {', '.join(_ITEMS)}"),
]
Input = Annotated[
    Annotated[Text, Tag(TEXT)]
    | Annotated[list[Item], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True), Tag(LIST)],
    text_or_list("a string or a list of items"),
]


def messages_of(items: str | list[Any]) -> list[dict[str, Any]]:
    """The messages for chat templates. Reasoning, text and calls that follow each other are one of the assistant's."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    found: list[dict[str, Any]] = []
    said: dict[str, Any] | None = None  # the assistant's message that may go on
    for item in items:
        if isinstance(item, CallOutputItem | CustomOutputItem):
            found.append({"role": "tool", "content": _text(item.output), "tool_call_id": item.call_id})
            said = None
        elif isinstance(item, MessageItem) and item.role != "assistant":
            found.append({"role": item.role, "content": _text(item.content)})
            said = None
        else:
            if said is None or (isinstance(item, ReasoningItem) and (said["content"] or "tool_calls" in said)):
                said = {"role": "assistant", "content": ""}
                found.append(said)
            _add(said, item)
    return [
        message for message in found if message["content"] or len(message) > 2 or message["role"] != "assistant"
    ]


def _add(message: dict[str, Any], item: Any) -> None:
    if isinstance(item, MessageItem):
        message["content"] += _text(item.content)
    elif isinstance(item, ReasoningItem):
        text = "".join(part.text for part in item.content or item.summary)
        if text:
            message["reasoning_content"] = message.get("reasoning_content", "") + text
    else:
        arguments = {"input": item.input} if isinstance(item, CustomCallItem) else _object(item.arguments)
        function = {"name": item.name, "arguments": arguments}
        message.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})


def _object(arguments: str) -> Any:
    """Arguments as an object, if they are one."""
    value = json_object(arguments)
    return arguments if value is None else value


def _text(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.refusal if isinstance(part, ItemRefusal) else part.text for part in content)
