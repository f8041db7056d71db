"""Bodies of Anthropic's Messages API that this server takes. Source: https://docs.anthropic.com/en/api/messages.

As in the other APIs a field is honoured, taken without changing the response, or refused (docs/api-messages.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Tag, model_validator

from faasmoe.api.anthropic.blocks import Blocks, CacheControl, Texts, joined, messages_of
from faasmoe.api.bodies import grammars
from faasmoe.api.bodies.fields import MAX_MESSAGES, MAX_TOOLS, Body, Name, Some, Stop, Text, ToolName, User
from faasmoe.api.bodies.shapes import by_type, shape_of
from faasmoe.api.chat.chat import Chat
from faasmoe.api.parsed_request import EndUser
from faasmoe.protocol.request import MAX_STOPS, SamplingParams, sampled


class TurnBody(Body):
    """One message of a conversation. A system message among them is the system's word from there on."""

    role: Literal["user", "assistant", "system"]
    content: Blocks

    @model_validator(mode="after")
    def _blocks_fit_the_role(self) -> Self:
        messages_of(self.role, self.content)
        return self


class ToolBody(Body):
    """A tool of the client."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: Text | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    # taken
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    defer_loading: Literal[False] | None = None
    input_examples: list[dict[str, Any]] | None = None
    allowed_callers: list[Text] | None = None

    def plain(self) -> dict[str, Any]:
        """The tool in the form of chat templates."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.input_schema}
        if self.description is not None:
            function["description"] = self.description
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}


class AnyChoice(Body):
    """Whether tools are called."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class NamedChoice(Body):
    """The tool to call."""

    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """Whether the model thinks before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Some | None = None
    display: Literal["summarized", "omitted", "full"] | None = None  # reasoning is sent as it is


class JsonFormat(Body):
    """An answer that a schema describes."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Body):
    """How the model is to answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class RequestMetadata(Body):
    """For whom the tenant asks."""

    user_id: User | None = None


class CountBody(Body):
    """POST /v1/messages/count_tokens: what makes the prompt."""

    model: Name
    messages: Annotated[list[TurnBody], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    system: Texts | None = None
    tools: Annotated[list[ToolBody], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: (
        Annotated[
            Annotated[AnyChoice, Tag(shape_of("auto"))]
            | Annotated[AnyChoice, Tag(shape_of("any"))]
            | Annotated[AnyChoice, Tag(shape_of("none"))]
            | Annotated[NamedChoice, Tag(shape_of("tool"))],
            by_type("auto", "any", "none", "tool"),
        ]
        | None
    ) = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    # taken: nothing is cleared, cached or kept by them
    context_management: dict[str, Any] | None = None
    cache_control: CacheControl | None = None
    # known to Anthropic's API and not served
    mcp_servers: Annotated[list[object], Field(max_length=0)] | None = None
    container: None = None

    def chat(self) -> Chat:
        """What is asked of the model. Raises `RequestError`."""
        system = joined(self.system) if self.system else ""
        turns = [message for turn in self.messages for message in messages_of(turn.role, turn.content)]
        choice, thinking, output = self.tool_choice, self.thinking, self.output_config or OutputConfig()
        kinds: dict[str, Literal["auto", "required", "none"]] = {"any": "required", "none": "none"}
        return Chat(
            messages=[{"role": "system", "content": system}, *turns] if system else turns,
            tools=[tool.plain() for tool in self.tools or ()],
            choice=kinds.get(choice.type, "auto") if choice else "auto",
            named=choice.name if isinstance(choice, NamedChoice) else None,
            parallel=not (choice and choice.disable_parallel_tool_use),
            thinking={"enabled": True, "disabled": False}.get(thinking.type) if thinking else None,
            effort=output.effort,
            budget=thinking.budget_tokens if thinking else None,
            grammar=grammars.json_schema(output.format.schema_, "output_config") if output.format else None,
        )


class MessagesBody(CountBody):
    """POST /v1/messages."""

    max_tokens: Some
    stop_sequences: Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    stream: bool | None = False
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    metadata: RequestMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None  # there is one tier
    inference_geo: Text | None = None  # taken: there is one place
    speed: Literal["standard"] | None = None

    @property
    def end_user(self) -> EndUser:
        """For whom the tenant asks, as the ledger keeps it."""
        return EndUser((self.metadata.user_id if self.metadata else None) or "")

    def sampling(self, defaults: Mapping[str, float]) -> SamplingParams:
        """The sampling parameters, with `defaults` for fields that the body leaves out. Raises `RequestError`."""
        stated = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k")}
        given = sampled({**defaults, **{name: value for name, value in stated.items() if value is not None}})
        return SamplingParams(self.max_tokens, stop=tuple(self.stop_sequences or ()), **given)
