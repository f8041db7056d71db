"""Messages, and the count of their tokens: bodies to parsed requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from faasmoe.api.anthropic.responses import MessageStream, WholeMessage
from faasmoe.api.anthropic.schema import CountBody, MessagesBody
from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.chat.chat import prepared
from faasmoe.api.chat.reply import ReplyFormat
from faasmoe.api.interface import Head, ResponseStream, WholeResponse, WithoutStore
from faasmoe.api.parsed_request import Bounds, ParsedRequest
from faasmoe.protocol.request import SamplingParams


class Messages(WithoutStore):
    """POST /v1/messages."""

    name = "messages"
    path = "/v1/messages"
    id_prefix = "msg"
    schema = MessagesBody
    own = ReplyFormat

    def read(self, body: MessagesBody, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[ReplyFormat]:
        """See `Endpoint`."""
        asked = prepared(body.chat(), prompts, body.sampling())
        room = max(1, bounds.max_model_len - len(asked.prompt))
        return ParsedRequest(
            prompts=(tuple(asked.prompt),),
            params=replace(asked.params, max_tokens=min(body.max_tokens, room)),
            stream=bool(body.stream),
            end_user=body.end_user,
            own=asked.reply,
        )

    def stream(self, head: Head[ReplyFormat]) -> ResponseStream:
        """See `Endpoint`."""
        return MessageStream(head)

    def whole(self, head: Head[ReplyFormat]) -> WholeResponse:
        """See `Endpoint`."""
        return WholeMessage(head)


class TokenCount:
    """POST /v1/messages/count_tokens."""

    name = "count_tokens"
    path = "/v1/messages/count_tokens"
    schema = CountBody
    own = ReplyFormat

    def read(self, body: CountBody, prompts: PromptReader, _: Bounds) -> ParsedRequest[ReplyFormat]:
        """See `Counter`."""
        asked = prepared(body.chat(), prompts, SamplingParams())
        return ParsedRequest(prompts=(tuple(asked.prompt),), params=SamplingParams(), own=asked.reply)

    def body(self, tokens: int) -> Mapping[str, Any]:
        """See `Counter`."""
        return {"input_tokens": tokens}
