"""Messages of a conversation in OpenAI's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Tag

from faasmoe.api.bodies.shapes import LIST, TEXT, text_or_list
from faasmoe.api.openai.fields import MAX_PARTS, Body, NoItems, Speaker, Text

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

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Speaker | None = None

    # known to OpenAI's API and not served
    refusal: None = None
    annotations: NoItems | None = None
    audio: None = None
    tool_calls: NoItems | None = None
    function_call: None = None

    def plain(self) -> dict[str, str]:
        """The role, the text and the name, in the form of chat templates."""
        content = self.content if isinstance(self.content, str) else "".join(p.text for p in self.content)
        name = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": content, **name}
