"""Messages of a conversation in OpenAI's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Tag, model_validator

from faasmoe.api.bodies.fields import MAX_CALLS, MAX_PARTS, Body, CallId, NoItems, Speaker, Text
from faasmoe.api.bodies.shapes import LIST, TEXT, text_or_list
from faasmoe.api.openai.tools import ToolCall

_UNREAD = {  # parts of OpenAI's and vLLM's chats that are no text
    "image_url": "images",
    "input_audio": "sounds",
    "audio_url": "sounds",
    "video_url": "videos",
    "file": "files",
}


def _readable(kind: Any) -> Any:
    if isinstance(kind, str) and kind in _UNREAD:
        raise ValueError(
            f"{_UNREAD[kind]} are not read: every model is served as text, also one that can see or hear"
        )
    return kind


class TextPart(Body):
    """A part of a message's content; only text is taken."""

    type: Annotated[Literal["text"], BeforeValidator(_readable)]
    text: Text
    prompt_cache_breakpoint: None = None


Content = Annotated[
    Annotated[Text, Tag(TEXT)] | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True), Tag(LIST)],
    text_or_list("a string or a list of text parts"),
]


class Message(Body):
    """One turn of a conversation. An assistant's message may be one that this server has sent."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: Speaker | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS, fail_fast=True)] | None = None
    tool_call_id: CallId | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None  # vLLM's name of the same
    refusal: Text | None = None

    # known to OpenAI's API and not served
    annotations: NoItems | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise ValueError("content must be given, but for an assistant's message with tool_calls")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls are an assistant's, and this message is the {self.role}'s")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("tool_call_id must be given in a message of the role tool, and in no other")
        return self

    def plain(self) -> dict[str, Any]:
        """The message in the form of chat templates; a content that is null is an empty text."""
        content = self.content if self.content is not None else self.refusal or ""
        found: dict[str, Any] = {
            "role": self.role,
            "content": content if isinstance(content, str) else "".join(part.text for part in content),
        }
        if self.name is not None:
            found["name"] = self.name
        if reasoning := self.reasoning_content or self.reasoning:
            found["reasoning_content"] = reasoning
        if self.tool_calls:
            found["tool_calls"] = [call.plain() for call in self.tool_calls]
        if self.tool_call_id is not None:
            found["tool_call_id"] = self.tool_call_id
        return found
