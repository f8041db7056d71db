"""vLLM's routes from texts to tokens and back, which readers answer."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from faasmoe.api.bodies.fields import MAX_MESSAGES, MAX_TOOLS, Body, Name, TemplateOptions, Text
from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.chat.chat import Chat, prepared
from faasmoe.api.openai.messages import Message
from faasmoe.api.openai.tools import Tool
from faasmoe.api.parsed_request import Bounds, ParsedRequest, ReaderAnswer, answered
from faasmoe.errors import RequestError
from faasmoe.protocol.request import SamplingParams


class TokenizeBody(Body):
    """POST /tokenize: a prompt, or a chat."""

    model: Name
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    chat_template_kwargs: TemplateOptions | None = None
    return_token_strs: bool | None = False
    add_special_tokens: bool | None = True
    add_generation_prompt: Annotated[bool | None, Field()] = True

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("give one of prompt and messages", param="prompt")
        if self.add_special_tokens is False or self.add_generation_prompt is False:
            field = "add_special_tokens" if self.add_special_tokens is False else "add_generation_prompt"
            raise RequestError(f"{field}: tokens are those of a request, which has them", param=field)
        return self


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: Name
    tokens: Annotated[list[int], Field(fail_fast=True)]


class Tokenize:
    """POST /tokenize."""

    name = "tokenize"
    path = "/tokenize"
    schema = TokenizeBody

    def read(self, body: TokenizeBody, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[ReaderAnswer]:
        """See `ReaderRoute`."""
        if body.messages is not None:
            chat = Chat(
                messages=[message.plain() for message in body.messages],
                tools=[tool.plain() for tool in body.tools or ()],
                options=body.chat_template_kwargs or {},
            )
            ids = prepared(chat, prompts, SamplingParams()).prompt
        else:
            (ids,) = prompts.prompts(body.prompt or "")
        found: dict[str, Any] = {"count": len(ids), "max_model_len": bounds.max_model_len, "tokens": ids}
        found["token_strs"] = [prompts.encoder.name(token) for token in ids] if body.return_token_strs else None
        return answered(found)


class Detokenize:
    """POST /detokenize."""

    name = "detokenize"
    path = "/detokenize"
    schema = DetokenizeBody

    def read(self, body: DetokenizeBody, prompts: PromptReader, _: Bounds) -> ParsedRequest[ReaderAnswer]:
        """See `ReaderRoute`."""
        return answered({"prompt": prompts.encoder.text(prompts.check(body.tokens, "tokens"))})


TOKENIZE, DETOKENIZE = Tokenize(), Detokenize()
