"""Bodies of the Responses API that this server takes. Source: https://platform.openai.com/docs/api-reference/responses.

As in the other APIs a field is honoured, taken without changing the response, or refused (docs/api-responses.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from faasmoe.api.bodies import grammars
from faasmoe.api.bodies.fields import MAX_NAME, MAX_TOOLS, Body, Metadata, Name, Some, Text, ToolName, User
from faasmoe.api.bodies.shapes import NO_SHAPE, OBJECT, TEXT, by_type, shape_of, text_or_object
from faasmoe.api.chat.chat import Chat
from faasmoe.api.parsed_request import EndUser
from faasmoe.api.responses.items import Input, messages_of
from faasmoe.errors import RequestError
from faasmoe.protocol.request import SamplingParams, sampled

# OpenAI's own tools, which run on its servers: clients list them whatever the server has, so they are taken, and the
# model is not told of them
_NOT_OFFERED = frozenset(
    ("web_search", "web_search_preview", "file_search", "code_interpreter", "image_generation", "local_shell", "mcp",
     "computer_use_preview", "namespace", "tool_search")
)  # fmt: skip
_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


class FunctionToolBody(Body):
    """A function of the client."""

    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: Literal[False] | None = None

    def plain(self) -> dict[str, Any]:
        """The tool in the form of chat templates."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.parameters or {"type": "object"}}
        if self.description is not None:
            function["description"] = self.description
        if self.strict and self.parameters:
            function["strict"] = True
        return {"type": "function", "function": function}


class CustomToolBody(Body):
    """A tool that takes text: the model gets a function with one text."""

    type: Literal["custom"]
    name: ToolName
    description: Text | None = None
    format: dict[str, Any] | None = None  # a grammar is told to the model, and not enforced
    defer_loading: Literal[False] | None = None

    def plain(self) -> dict[str, Any]:
        """The tool in the form of chat templates."""
        told = [self.description or "", str((self.format or {}).get("definition") or "")]
        function = {"name": self.name, "description": "\n".join(filter(None, told)), "parameters": _INPUT}
        return {"type": "function", "function": function}


class HostedTool(Body, extra="allow"):
    """A tool that this server does not have."""

    type: Text


def _tool_kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("function", "custom"):
        return shape_of(kind)
    return "(hosted)" if isinstance(kind, str) and kind in _NOT_OFFERED else None


ToolBody = Annotated[
    Annotated[FunctionToolBody, Tag(shape_of("function"))]
    | Annotated[CustomToolBody, Tag(shape_of("custom"))]
    | Annotated[HostedTool, Tag("(hosted)")],
    Discriminator(
        _tool_kind, NO_SHAPE, f"an object whose type is function, custom, {', '.join(sorted(_NOT_OFFERED))}"
    ),
]


class ToolReference(Body):
    """The choice of one tool."""

    type: Literal["function", "custom"]
    name: ToolName


class AllowedTools(Body):
    """The choice among some tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], Field(min_length=1, max_length=MAX_TOOLS)]


class AnswerText(Body):
    """Any text."""

    type: Literal["text"]


class AnswerObject(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class AnswerSchema(Body):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: Text | None = None
    strict: bool | None = None  # responses are held to the schema either way


class TextConfig(Body):
    """The form of the answer."""

    format: (
        Annotated[
            Annotated[AnswerText, Tag(shape_of("text"))]
            | Annotated[AnswerObject, Tag(shape_of("json_object"))]
            | Annotated[AnswerSchema, Tag(shape_of("json_schema"))],
            by_type("text", "json_object", "json_schema"),
        ]
        | None
    ) = None
    verbosity: Literal["low", "medium", "high"] | None = None  # taken

    def grammar(self) -> str | None:
        """The grammar of the answer. Raises `RequestError`."""
        if isinstance(self.format, AnswerSchema):
            return grammars.json_schema(self.format.schema_, "text")
        return grammars.json_object("text") if isinstance(self.format, AnswerObject) else None


class ReasoningConfig(Body):
    """How the model is to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None  # reasoning is sent as it is
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Text | None = None


class ResponseStreamOptions(Body):
    """Options of a stream."""

    include_obfuscation: Literal[False] | None = None


class ResponsesBody(Body):
    """POST /v1/responses."""

    model: Name
    input: Input
    instructions: Text | None = None
    tools: Annotated[list[ToolBody], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag(TEXT)]
            | Annotated[
                Annotated[ToolReference, Tag(shape_of("function"))]
                | Annotated[ToolReference, Tag(shape_of("custom"))]
                | Annotated[AllowedTools, Tag(shape_of("allowed_tools"))],
                by_type("function", "custom", "allowed_tools"),
                Tag(OBJECT),
            ],
            text_or_object('"none", "auto", "required", or an object that names tools'),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = True
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    max_output_tokens: Some | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stream: bool | None = False
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = True
    previous_response_id: Annotated[Text, Field(max_length=256)] | None = None

    # taken without changing the response
    user: User | None = None
    safety_identifier: User | None = None
    metadata: Metadata | None = None
    prompt_cache_key: Annotated[Text, Field(max_length=MAX_NAME)] | None = None
    prompt_cache_retention: Literal["in-memory", "in_memory", "24h"] | None = None
    client_metadata: dict[str, Any] | None = None  # Codex'
    include: Annotated[list[Text], Field(max_length=32)] | None = None  # what there is is always sent
    truncation: Literal["auto", "disabled"] | None = None  # nothing is cut
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    max_tool_calls: Some | None = None  # of OpenAI's own tools

    # known to OpenAI's API and not served
    background: Literal[False] | None = None
    conversation: None = None
    prompt: None = None
    top_logprobs: Literal[0] | None = None

    def _own_tools(self) -> list[FunctionToolBody | CustomToolBody]:
        return [tool for tool in self.tools or () if not isinstance(tool, HostedTool)]

    @property
    def custom(self) -> list[str]:
        """Names of tools that take text."""
        return [tool.name for tool in self._own_tools() if isinstance(tool, CustomToolBody)]

    @property
    def end_user(self) -> EndUser:
        """For whom the tenant asks, as the ledger keeps it."""
        return EndUser(self.user or self.safety_identifier or "", dict(self.metadata or {}))

    def chat(self) -> Chat:
        """What is asked of the model. Raises `RequestError`."""
        turns, tools, choice = messages_of(self.input), self._own_tools(), self.tool_choice
        if self.instructions:
            turns = [{"role": "developer", "content": self.instructions}, *turns]
        if isinstance(choice, AllowedTools):
            allowed = {each.name for each in choice.tools}
            if not allowed <= {tool.name for tool in tools}:
                raise RequestError("tool_choice names a tool that is not among tools", param="tool_choice")
            tools = [tool for tool in tools if tool.name in allowed]
        mode = choice.mode if isinstance(choice, AllowedTools) else choice
        return Chat(
            messages=turns,
            tools=[tool.plain() for tool in tools],
            choice=mode if isinstance(mode, str) else "auto",
            named=choice.name if isinstance(choice, ToolReference) else None,
            parallel=self.parallel_tool_calls is not False,
            effort=self.reasoning.effort if self.reasoning else None,
            grammar=self.text.grammar() if self.text else None,
        )

    def sampling(self, max_tokens: int, defaults: Mapping[str, float]) -> SamplingParams:
        """The sampling parameters, with `defaults` for fields that the body leaves out. Raises `RequestError`."""
        stated = {name: getattr(self, name) for name in ("temperature", "top_p")}
        given = sampled({**defaults, **{name: value for name, value in stated.items() if value is not None}})
        return SamplingParams(max_tokens, **given)
