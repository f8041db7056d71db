"""The endpoint of responses: bodies to parsed requests, with the conversation that a body goes on from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.chat.chat import prepared
from faasmoe.api.interface import Head, ResponseStream, WholeResponse
from faasmoe.api.parsed_request import Bounds, ParsedRequest
from faasmoe.api.response_store import ResponseStore
from faasmoe.api.responses.responses import ResponseObject, ResponsePlan, TypedEvents
from faasmoe.api.responses.schema import ResponsesBody
from faasmoe.errors import RequestError

_ECHOED = (
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls", "previous_response_id",
    "prompt_cache_key", "reasoning", "safety_identifier", "service_tier", "store", "temperature", "text",
    "tool_choice", "tools", "top_p", "truncation", "user",
)  # fmt: skip
_DEFAULTS = {"tool_choice": "auto", "tools": [], "text": {"format": {"type": "text"}}, "truncation": "disabled",
             "metadata": {}, "parallel_tool_calls": True}  # fmt: skip


class Responses:
    """POST /v1/responses."""

    name = "responses"
    path = "/v1/responses"
    id_prefix = "resp"
    schema = ResponsesBody
    own = ResponsePlan

    def __init__(self) -> None:
        self.store = ResponseStore()

    def recalled(self, body: bytes, tenant: str) -> bytes:
        """See `Endpoint`: the items of the response that the body names stand before its own."""
        try:
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            name = msgspec.json.decode(fields.get("previous_response_id", b"null"), type=str | None)
        except msgspec.MsgspecError:  # the reader says what is wrong
            return body
        if name is None:
            return body
        previous = self.store.get(tenant, name)
        if previous is None:
            raise RequestError(
                "previous_response_id: there is no such response, or none any more: responses are kept for an hour, "
                "and none with store false",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        before, own = previous.items.strip(), bytes(fields.get("input", b"null")).strip()
        if own[:1] == b'"':
            own = b'[{"role":"user","content":' + own + b"}]"
        if own[:1] != b"[":
            return body
        between = b"," if before[1:-1].strip() and own[1:-1].strip() else b""
        fields["input"] = msgspec.Raw(before[:-1] + between + own[1:])
        return msgspec.json.encode(fields)

    def read(self, body: ResponsesBody, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[ResponsePlan]:
        """See `Endpoint`."""
        asked = prepared(body.chat(), prompts, body.sampling(1, bounds.defaults))
        room = max(1, bounds.max_model_len - len(asked.prompt))
        most = room if body.max_output_tokens is None else min(body.max_output_tokens, room)
        # pydantic cannot tell which of a union's models is there, and warns of what it writes rightly
        written = body.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False)
        items = written["input"]
        if isinstance(items, str):
            items = [{"type": "message", "role": "user", "content": items}]
        echoed: dict[str, Any] = {name: written.get(name, _DEFAULTS.get(name)) for name in _ECHOED}
        return ParsedRequest(
            prompts=(tuple(asked.prompt),),
            params=replace(asked.params, max_tokens=most),
            limited=body.max_output_tokens is not None,
            stream=bool(body.stream),
            end_user=body.end_user,
            own=ResponsePlan(
                reply=asked.reply,
                echoed=echoed,
                items=None if body.store is False else msgspec.json.encode(items).decode(),
                custom=body.custom,
            ),
        )

    def stream(self, head: Head[ResponsePlan]) -> ResponseStream:
        """See `Endpoint`."""
        return TypedEvents(head, self.store)

    def whole(self, head: Head[ResponsePlan]) -> WholeResponse:
        """See `Endpoint`."""
        return ResponseObject(head, self.store)
