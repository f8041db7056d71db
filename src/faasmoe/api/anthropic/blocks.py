"""Blocks of messages in Anthropic's API, and their form for chat templates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from faasmoe.api.bodies.fields import MAX_PARTS, Body, CallId, Text, ToolName
from faasmoe.api.bodies.shapes import LIST, TEXT, by_type, read_as_text, shape_of, text_or_list

_READABLE = read_as_text(
    {
        "image": "images",
        "document": "documents",
        "container_upload": "files",
        "search_result": "search results",
    }
)


class CacheControl(Body):
    """Where a client would have a prompt cached: common beginnings of prompts are found without it."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None
    scope: Literal["global", "organization"] | None = None


class TextBlock(Body):
    """Text."""

    type: Literal["text"]
    text: Text
    cache_control: CacheControl | None = None
    citations: None = None


class ToolUseBlock(Body):
    """A call that the assistant has made."""

    type: Literal["tool_use"]
    id: CallId
    name: ToolName
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: dict[str, Any] | None = None  # who has called: taken

    def call(self) -> dict[str, Any]:
        """The call in the form of chat templates."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.input}}


Texts = Annotated[
    Annotated[Text, Tag(TEXT)]
    | Annotated[
        list[Annotated[TextBlock, _READABLE]],
        Field(max_length=MAX_PARTS, fail_fast=True),
        Tag(LIST),
    ],
    text_or_list("a string or a list of text blocks"),
]


class ToolResultBlock(Body):
    """What came of a call."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: Texts | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None

    def message(self) -> dict[str, Any]:
        """The message of the role `tool`; an error says so, since templates have no place for it."""
        text = joined(self.content or "")
        return {
            "role": "tool",
            "content": f"Error: {text}" if self.is_error else text,
            "tool_call_id": self.tool_use_id,
        }


class ThinkingBlock(Body):
    """Reasoning that the assistant has written."""

    type: Literal["thinking"]
    thinking: Text
    signature: Text | None = None  # of the server that wrote it: taken


class RedactedThinkingBlock(Body):
    """Reasoning that nobody may read: taken, since this server writes none."""

    type: Literal["redacted_thinking"]
    data: Text


Block = Annotated[
    Annotated[TextBlock, Tag(shape_of("text"))]
    | Annotated[ToolUseBlock, Tag(shape_of("tool_use"))]
    | Annotated[ToolResultBlock, Tag(shape_of("tool_result"))]
    | Annotated[ThinkingBlock, Tag(shape_of("thinking"))]
    | Annotated[RedactedThinkingBlock, Tag(shape_of("redacted_thinking"))],
    by_type("text", "tool_use", "tool_result", "thinking", "redacted_thinking"),
    _READABLE,
]
Blocks = Annotated[
    Annotated[Text, Tag(TEXT)] | Annotated[list[Block], Field(max_length=MAX_PARTS, fail_fast=True), Tag(LIST)],
    text_or_list("a string or a list of blocks"),
]


def joined(content: str | list[TextBlock]) -> str:
    """The text of a content of texts, one block a line."""
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def messages_of(role: str, content: str | list[Any]) -> list[dict[str, Any]]:
    """The messages for chat templates of one of the API's: results of calls are messages of their own, before the rest.

    Raises `ValueError` if a block is not the role's.
    """
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    results = [block.message() for block in content if isinstance(block, ToolResultBlock)]
    calls = [block.call() for block in content if isinstance(block, ToolUseBlock)]
    thoughts = [block.thinking for block in content if isinstance(block, ThinkingBlock)]
    texts = [block.text for block in content if isinstance(block, TextBlock)]
    if results and role != "user":
        raise ValueError(f"a tool_result is the user's, and this message is the {role}'s")
    if (calls or thoughts) and role != "assistant":
        raise ValueError(f"tool_use and thinking are the assistant's, and this message is the {role}'s")
    message: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return [*results, message] if texts or calls or not results else results
