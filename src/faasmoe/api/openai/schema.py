"""Bodies of OpenAI's API that this server takes. Source: https://platform.openai.com/docs/api-reference.

A field is honoured or refused: unknown names are an error, and so is any value but the neutral ones of a known
field that is not served (those are `None` and `Literal`s below). `docs/api.md` has the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from faasmoe.api.bodies.fields import (
    MAX_CHOICES,
    MAX_MESSAGES,
    MAX_NAME,
    MAX_TOOLS,
    Biases,
    Body,
    Count,
    Integer,
    Metadata,
    Name,
    NoItems,
    Prompt,
    Some,
    Stops,
    TemplateOptions,
    Text,
    User,
    field_range,
)
from faasmoe.api.chat.chat import Chat
from faasmoe.api.openai.messages import Message
from faasmoe.api.openai.responses import StreamUsage
from faasmoe.api.openai.structured import ResponseFormat, StructuredOutputs
from faasmoe.api.openai.tools import NamedTool, Tool, ToolChoice
from faasmoe.api.parsed_request import EndUser
from faasmoe.errors import RequestError
from faasmoe.protocol.request import SamplingParams, sampled

_SAMPLED_AS_NAMED = (  # fields that `SamplingParams` has under the same names; null stands for the neutral value
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "ignore_eos",
)
ServiceTier = Literal["auto", "default", "flex", "priority"]
_PRIORITIES = {"flex": -1, "priority": 1}  # within the tenant; others are between them


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False  # vLLM's
    include_obfuscation: Literal[False] | None = None


class GenerationBody(Body):
    """The common fields of completions and chat completions."""

    model: Name
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = 1
    temperature: Annotated[float, field_range("temperature")] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Integer | None = None
    stop: Stops | None = None
    presence_penalty: Annotated[float, field_range("presence_penalty")] | None = 0.0
    frequency_penalty: Annotated[float, field_range("frequency_penalty")] | None = 0.0
    logit_bias: Biases | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    service_tier: ServiceTier | None = None  # OpenAI has it for chats only

    # vLLM's, beside OpenAI's
    top_k: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    min_p: Annotated[float, field_range("min_p")] | None = None
    repetition_penalty: Annotated[float, field_range("repetition_penalty")] | None = None
    ignore_eos: bool | None = False
    structured_outputs: StructuredOutputs | None = None

    # taken without changing the response
    user: User | None = None
    metadata: Metadata | None = None
    safety_identifier: User | None = None
    prompt_cache_key: Annotated[Text, Field(max_length=MAX_NAME)] | None = None  # prefixes are found without it
    prompt_cache_retention: Literal["in-memory", "in_memory", "24h"] | None = None
    store: bool | None = False  # nothing is stored

    @property
    def choices(self) -> int:
        """Responses to each prompt."""
        return self.n or 1

    @property
    def priority(self) -> int:
        """The priority within the tenant: requests with a higher one run first."""
        return _PRIORITIES.get(self.service_tier or "", 0)

    @property
    def tier(self) -> str | None:
        """The service tier that responses repeat, if the body names one."""
        return "default" if self.service_tier == "auto" else self.service_tier

    @property
    def stream_usage(self) -> StreamUsage:
        """Which chunks of a stream have the usage."""
        options = self.stream_options or StreamOptions()
        if options.continuous_usage_stats and options.include_usage:
            return "each"
        return "last" if options.include_usage else "none"

    @property
    def end_user(self) -> EndUser:
        """For whom the tenant asks, as the ledger keeps it."""
        return EndUser(self.user or self.safety_identifier or "", dict(self.metadata or {}))

    def sampling(self, max_tokens: int, defaults: Mapping[str, float] | None = None) -> SamplingParams:
        """The sampling parameters, with `defaults` for fields that the body leaves out.

        Raises `RequestError` with the field if a value is out of range.
        """
        stated = {name: getattr(self, name) for name in _SAMPLED_AS_NAMED if getattr(self, name) is not None}
        given = sampled({**(defaults or {}), **stated})
        return SamplingParams(
            max_tokens,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            logit_bias=tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items()),
            grammar=self.grammar,
            **given,
            **self._extras(),
        )

    @cached_property
    def grammar(self) -> str | None:
        """The grammar that responses are sentences of; None if there is none. Raises `RequestError`."""
        return self._grammar()

    def _grammar(self) -> str | None:
        return self.structured_outputs.grammar() if self.structured_outputs else None

    def _extras(self) -> dict[str, Any]:
        """The fields of `SamplingParams` for what a response has besides the completion."""
        raise NotImplementedError


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: Prompt
    max_tokens: Count | None = 16
    echo: bool | None = False
    logprobs: Annotated[int, field_range("logprobs")] | None = None
    best_of: Integer | None = None  # honoured as far as it asks for no more than n

    # known to OpenAI's API and not served
    suffix: Literal[""] | None = None

    def _extras(self) -> dict[str, Any]:
        return {"logprobs": self.logprobs, "echo": bool(self.echo)}

    @model_validator(mode="after")
    def _best_of_equals_n(self) -> Self:
        if self.best_of is not None and self.best_of != self.choices:
            raise RequestError(
                f"best_of is {self.best_of}: this server answers with all it generates, so leave it out or make it "
                f"equal to n, which is {self.choices}",
                param="best_of",
            )
        return self


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_tokens: Some | None = None  # a ceiling; None: until the context is full
    max_completion_tokens: Some | None = None  # newer name of the same
    logprobs: bool | None = False
    top_logprobs: Annotated[int, field_range("logprobs")] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = True
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    # vLLM's, and those of other servers, beside OpenAI's
    chat_template_kwargs: TemplateOptions | None = None
    enable_thinking: bool | None = None
    thinking_token_budget: Count | None = None

    # known to OpenAI's API and not served
    audio: None = None
    function_call: Literal["none"] | None = None
    functions: NoItems | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    moderation: None = None
    prediction: None = None
    prompt_cache_options: None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None

    @property
    def limit(self) -> int | None:
        """The most tokens of a response; None without a limit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def chat(self) -> Chat:
        """What is asked of the model. Raises `RequestError`."""
        named = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        return Chat(
            messages=[message.plain() for message in self.messages],
            tools=[tool.plain() for tool in self.tools or ()],
            choice=self.tool_choice if isinstance(self.tool_choice, str) else "auto",
            named=named,
            parallel=self.parallel_tool_calls is not False,
            options=self.chat_template_kwargs or {},
            thinking=self.enable_thinking,
            effort=self.reasoning_effort,
            budget=self.thinking_token_budget,
            grammar=self.grammar,
        )

    def _grammar(self) -> str | None:
        of_format = self.response_format.grammar() if self.response_format else None
        return super()._grammar() if of_format is None else of_format

    def _extras(self) -> dict[str, Any]:
        return {"logprobs": (self.top_logprobs or 0) if self.logprobs else None}

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise RequestError(
                "max_tokens and max_completion_tokens mean the same: give one of them",
                param="max_completion_tokens",
            )
        return self

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.structured_outputs and self.response_format and self.response_format.type != "text":
            raise RequestError(
                "response_format and structured_outputs both say what the response looks like: give one of them",
                param="structured_outputs",
            )
        return self

    @model_validator(mode="after")
    def _alternatives_need_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError(
                "top_logprobs is for answers with logprobs: set logprobs as well", param="top_logprobs"
            )
        return self
