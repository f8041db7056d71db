"""Tools in OpenAI's chats: their definitions, the choice among them, and calls in messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Tag

from faasmoe.api.bodies.fields import Body, CallId, Text, ToolName
from faasmoe.api.bodies.shapes import OBJECT, TEXT, text_or_object
from faasmoe.api.chat.json_scanner import json_object


class ToolFunction(Body):
    """A function that the model may call."""

    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None  # a JSON schema
    strict: bool | None = None


class Tool(Body):
    """A tool; only functions are served."""

    type: Literal["function"]
    function: ToolFunction

    def plain(self) -> dict[str, Any]:
        """The tool in the form of chat templates."""
        return {"type": "function", "function": self.function.model_dump(exclude_none=True)}


class FunctionName(Body):
    """The function that a choice names."""

    name: ToolName


class NamedTool(Body):
    """The choice of one tool."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(TEXT)] | Annotated[NamedTool, Tag(OBJECT)],
    text_or_object('"none", "auto", "required", or an object that names a function'),
]


class CalledFunction(Body):
    """What an assistant has called."""

    name: ToolName
    arguments: Text


class ToolCall(Body):
    """A call in an assistant's message."""

    id: CallId
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # of a stream's delta; clients send it back

    def plain(self) -> dict[str, Any]:
        """The call in the form of chat templates, with its arguments as an object if they are one."""
        arguments = json_object(self.function.arguments)
        return {
            "id": self.id,
            "type": "function",
            "function": {
                "name": self.function.name,
                "arguments": self.function.arguments if arguments is None else arguments,
            },
        }
