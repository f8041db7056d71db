"""Messages, and the count of their tokens: bodies to parsed requests."""

from __future__ import annotations

from dataclasses import replace

from faasmoe.api.anthropic.responses import MessageStream, WholeMessage
from faasmoe.api.anthropic.schema import CountBody, MessagesBody
from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.chat.chat import prepared
from faasmoe.api.chat.reply import ReplyFormat
from faasmoe.api.interface import Head, ResponseStream, WholeResponse, WithoutStore
from faasmoe.api.parsed_request import Bounds, ParsedRequest, ReaderAnswer, answered
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
        asked = prepared(body.chat(), prompts, body.sampling(bounds.defaults))
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

    def read(self, body: CountBody, prompts: PromptReader, _: Bounds) -> ParsedRequest[ReaderAnswer]:
        """See `ReaderRoute`."""
        tokens = len(prepared(body.chat(), prompts, SamplingParams()).prompt)
        return answered({"input_tokens": tokens})
