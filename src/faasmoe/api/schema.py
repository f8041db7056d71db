"""Bodies of OpenAI's API that this server takes. Source: https://platform.openai.com/docs/api-reference.

A field is honoured or refused: unknown names are an error, and so is any value but the neutral one of a known
field that is not served (those are `Literal`s below).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from faasmoe.orchestrator.request import SamplingParams


class Body(BaseModel):
    """Strict: a number in quotes is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Body):
    """What a stream carries besides text."""

    include_usage: bool = False


class GenerationBody(Body):
    """What completions and chat completions have in common."""

    model: str
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    # Known to OpenAI's API and not served: only the neutral value is taken.
    user: None = None
    n: Literal[1] | None = 1
    presence_penalty: Literal[0] | None = 0
    frequency_penalty: Literal[0] | None = 0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    def sampling(self, max_tokens: int) -> SamplingParams:
        """Raises `RequestError` naming the field if a value is out of range."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return SamplingParams(max_tokens, self.temperature, self.top_p, self.seed, stop)

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for streams only: set stream as well")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = 16

    best_of: Literal[1] | None = 1
    echo: Literal[False] | None = False
    logprobs: None = None
    suffix: None = None


class TextPart(Body):
    """A part of a message's content; only text is taken."""

    type: Literal["text"]
    text: str


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: None = None

    def plain(self) -> dict[str, str]:
        """Role and text, as chat templates want them."""
        content = self.content if isinstance(self.content, str) else "".join(p.text for p in self.content)
        return {"role": self.role, "content": content}


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: int | None = None  # until the context is full
    max_completion_tokens: int | None = None  # newer name of the same

    logprobs: Literal[False] | None = False
    top_logprobs: None = None
    tools: Annotated[list[object], Field(max_length=0)] | None = None
    tool_choice: Literal["none"] | None = None
    response_format: None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens mean the same: give one of them")
        return self
