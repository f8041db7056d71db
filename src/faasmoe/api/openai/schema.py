"""Bodies of OpenAI's API that this server takes. Source: https://platform.openai.com/docs/api-reference.

A field is honoured or refused: unknown names are an error, and so is any value but the neutral ones of a known
field that is not served (those are `None` and `Literal`s below). `docs/api.md` has the whole table.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag, model_validator

from faasmoe.api.bodies.shapes import ID_LISTS, IDS, LIST, NO_CHARACTER, TEXT, TEXTS, prompt_shape, text_or_list
from faasmoe.api.openai.responses import StreamUsage
from faasmoe.api.parsed_request import EndUser
from faasmoe.errors import RequestError
from faasmoe.protocol.request import MAX_STOPS, RANGES, SamplingParams

MAX_CHOICES = 128  # of all prompts of a request together; the greatest `n` of OpenAI's API
MAX_MESSAGES = 4096
MAX_PARTS = 4096  # of one message
MAX_BIASES = 4096
MAX_STOP = 1024  # characters of a stop string: so much text of a response is held back until it is certain
MAX_NAME = 1024  # characters of a model's name
MAX_USER = 256  # characters of the name of a tenant's own end user
MAX_METADATA = 16  # entries, as in OpenAI's API
MAX_METADATA_KEY, MAX_METADATA_VALUE = 64, 512  # characters

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


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(NO_CHARACTER) from None
    return text


def _short_keys(metadata: dict[str, str]) -> dict[str, str]:
    if any(len(key) > MAX_METADATA_KEY for key in metadata):
        raise ValueError(f"a key has more than {MAX_METADATA_KEY} characters")
    return metadata


def _range(name: str) -> Any:
    low, high = RANGES[name]
    return Field(ge=low, le=high)


Text = Annotated[str, AfterValidator(_well_formed)]
Stop = Annotated[Text, Field(max_length=MAX_STOP)]
Stops = Annotated[
    Annotated[Stop, Tag(TEXT)] | Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True), Tag(LIST)],
    text_or_list(f"a string or a list of up to {MAX_STOPS} strings"),
]
Name = Annotated[Text, Field(max_length=MAX_NAME)]
Speaker = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]  # spells no control token
User = Annotated[Text, Field(max_length=MAX_USER)]
Metadata = Annotated[
    dict[Text, Annotated[Text, Field(max_length=MAX_METADATA_VALUE)]],
    Field(max_length=MAX_METADATA),
    AfterValidator(_short_keys),
]
Texts = Annotated[list[Text], Field(fail_fast=True)]
# `api.bodies.structure` bounds their number, which depends on the model
Ids = Annotated[list[int], Field(fail_fast=True)]
Prompt = Annotated[
    Annotated[Text, Tag(TEXT)]
    | Annotated[Texts, Tag(TEXTS)]
    | Annotated[Ids, Tag(IDS)]
    | Annotated[list[Ids], Field(fail_fast=True), Tag(ID_LISTS)],
    prompt_shape("a string, a list of strings, a list of token ids, or a list of lists of token ids"),
]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Some = Annotated[int, Field(ge=1, lt=2**63)]
TokenId = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]  # JSON's keys are strings
Biases = Annotated[dict[TokenId, Annotated[float, _range("logit_bias")]], Field(max_length=MAX_BIASES)]
ServiceTier = Literal["auto", "default", "flex", "priority"]
_PRIORITIES = {"flex": -1, "priority": 1}  # within the tenant; others are between them

NoItems = Annotated[list[object], Field(max_length=0)]


class Body(BaseModel):
    """Strict: a number in quotes is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False  # vLLM's
    include_obfuscation: Literal[False] | None = None


class GenerationBody(Body):
    """The common fields of completions and chat completions."""

    model: Name
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = 1
    temperature: Annotated[float, _range("temperature")] | None = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] | None = 1.0
    seed: Integer | None = None
    stop: Stops | None = None
    presence_penalty: Annotated[float, _range("presence_penalty")] | None = 0.0
    frequency_penalty: Annotated[float, _range("frequency_penalty")] | None = 0.0
    logit_bias: Biases | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    service_tier: ServiceTier | None = None  # OpenAI has it for chats only

    # vLLM's, beside OpenAI's
    top_k: Annotated[int, Field(ge=-1, lt=2**63)] | None = 0
    min_p: Annotated[float, _range("min_p")] | None = 0.0
    repetition_penalty: Annotated[float, _range("repetition_penalty")] | None = 1.0
    ignore_eos: bool | None = False

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

    def sampling(self, max_tokens: int) -> SamplingParams:
        """The sampling parameters. Raises `RequestError` with the field if a value is out of range."""
        given = {name: getattr(self, name) for name in _SAMPLED_AS_NAMED if getattr(self, name) is not None}
        if self.top_p == 0:  # no token but the likeliest
            given |= {"top_p": 1.0, "temperature": 0.0}
        return SamplingParams(
            max_tokens,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            logit_bias=tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items()),
            **given,
            **self._extras(),
        )

    def _extras(self) -> dict[str, Any]:
        """The fields of `SamplingParams` for what a response has besides the completion."""
        raise NotImplementedError


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: Prompt
    max_tokens: Count | None = 16
    echo: bool | None = False
    logprobs: Annotated[int, _range("logprobs")] | None = None
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


class TextPart(Body):
    """A part of a message's content; only text is taken."""

    type: Literal["text"]
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


class TextFormat(Body):
    """The format of plain text."""

    type: Literal["text"]


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_tokens: Some | None = None  # a ceiling; None: until the context is full
    max_completion_tokens: Some | None = None  # newer name of the same
    logprobs: bool | None = False
    top_logprobs: Annotated[int, _range("logprobs")] | None = None

    # known to OpenAI's API and not served
    audio: None = None
    function_call: Literal["none"] | None = None
    functions: NoItems | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    moderation: None = None
    parallel_tool_calls: Literal[True] | None = None
    prediction: None = None
    prompt_cache_options: None = None
    reasoning_effort: None = None
    response_format: TextFormat | None = None
    tool_choice: Literal["none"] | None = None
    tools: NoItems | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None

    @property
    def limit(self) -> int | None:
        """The most tokens of a response; None without a limit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

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
    def _alternatives_need_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError(
                "top_logprobs is for answers with logprobs: set logprobs as well", param="top_logprobs"
            )
        return self
