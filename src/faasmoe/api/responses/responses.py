"""Responses, whole and as the typed events of a stream."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import msgspec

from faasmoe.api.chat.deltas import CallArguments, CallStart, Content, Delta, Reasoning
from faasmoe.api.chat.json_scanner import json_object
from faasmoe.api.chat.reply import ReplyFormat, ReplyReader
from faasmoe.api.interface import ErrorInfo, Head, Usage
from faasmoe.api.response_store import ResponseStore
from faasmoe.protocol.request import Piece

Event = dict[str, Any]
_CODES = {429: "rate_limit_exceeded"}  # of errors, as the API lists them


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePlan:
    """What responses need to know of the body. Plain fields only: it travels between processes."""

    reply: ReplyFormat
    echoed: dict[str, Any]  # fields that responses repeat
    items: str | None  # of the conversation, in JSON; None if nothing is to be stored
    custom: list[str] = field(default_factory=list)  # names of tools that take text


class Output:
    """The items of one response, one after the other, with the events that tell of them."""

    def __init__(self, plan: ResponsePlan) -> None:
        self._reply = ReplyReader(plan.reply)
        self._custom = frozenset(plan.custom)
        self.items: list[dict[str, Any]] = []
        self._open: str | None = None  # type of the last item, while it goes on

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of reasoning so far."""
        return self._reply.reasoning_tokens

    def piece(self, piece: Piece) -> list[Event]:
        """Events for what the piece adds."""
        return [event for delta in self._reply.piece(piece) for event in self._delta(delta)]

    def close(self, status: str = "completed") -> list[Event]:
        """Events for the end of the last item, which is there in any case."""
        begun = [] if self.items else self._begin_text("message")
        return begun + self._end(status)

    def _delta(self, delta: Delta) -> list[Event]:
        if isinstance(delta, Content):
            return self._text("message", "response.output_text.delta", delta.text)
        if isinstance(delta, Reasoning):
            return self._text("reasoning", "response.reasoning_text.delta", delta.text)
        if isinstance(delta, CallStart):
            return self._end() + self._begin_call(delta)
        return self._arguments(delta)

    def _text(self, kind: str, event: str, text: str) -> list[Event]:
        begun = [] if self._open == kind else self._end() + self._begin_text(kind)
        self.items[-1]["content"][0]["text"] += text
        more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        return [*begun, {"type": event, **self._place(), "content_index": 0, "delta": text, **more}]

    def _begin_text(self, kind: str) -> list[Event]:
        if kind == "message":
            item: dict[str, Any] = {
                "type": "message",
                "id": _id("msg"),
                "status": "in_progress",
                "role": "assistant",
            }
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            item = {"type": "reasoning", "id": _id("rs"), "summary": [], "status": "in_progress"}
            part = {"type": "reasoning_text", "text": ""}
        begun = self._begin({**item, "content": []})
        self.items[-1]["content"] = [part]
        added = {"type": "response.content_part.added", **self._place(), "content_index": 0, "part": dict(part)}
        return [*begun, added]

    def _begin_call(self, start: CallStart) -> list[Event]:
        if start.name in self._custom:
            item = {
                "type": "custom_tool_call",
                "id": _id("ctc"),
                "call_id": start.id,
                "name": start.name,
                "input": "",
            }
        else:
            item = {
                "type": "function_call",
                "id": _id("fc"),
                "call_id": start.id,
                "name": start.name,
                "arguments": "",
            }
        return self._begin({**item, "status": "in_progress"})

    def _begin(self, item: dict[str, Any]) -> list[Event]:
        self.items.append(item)
        self._open = item["type"]
        added = {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": dict(item)}
        return [added]

    def _arguments(self, delta: CallArguments) -> list[Event]:
        item = self.items[-1]
        if item["type"] == "custom_tool_call":  # its text is known when its JSON is whole
            item["input"] += delta.text
            return []
        item["arguments"] += delta.text
        return [{"type": "response.function_call_arguments.delta", **self._place(), "delta": delta.text}]

    def _end(self, status: str = "completed") -> list[Event]:
        if self._open is None:
            return []
        item, self._open = self.items[-1], None
        item["status"] = status
        done = {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": item}
        return [*self._finished(item), done]

    def _finished(self, item: dict[str, Any]) -> list[Event]:
        """Events that tell the whole text of an item."""
        place = self._place()
        if item["type"] == "function_call":
            told = {"name": item["name"], "arguments": item["arguments"]}
            return [{"type": "response.function_call_arguments.done", **place, **told}]
        if item["type"] == "custom_tool_call":
            item["input"] = _input(item["input"])
            return [
                {"type": "response.custom_tool_call_input.delta", **place, "delta": item["input"]},
                {"type": "response.custom_tool_call_input.done", **place, "input": item["input"]},
            ]
        (part,) = item["content"]
        kind = "output_text" if item["type"] == "message" else "reasoning_text"
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return [
            {"type": f"response.{kind}.done", **place, "content_index": 0, "text": part["text"], **more},
            {"type": "response.content_part.done", **place, "content_index": 0, "part": dict(part)},
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}


class ResponseBuilder:
    """The response object, in each of its states, and what is stored of it in the end."""

    def __init__(self, head: Head[ResponsePlan], store: ResponseStore) -> None:
        self._head = head
        self._store = store
        self.plan = head.parsed.own
        self.id = head.id.replace("-", "_", 1)
        self.last = Piece("", 0)

    def value(self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        """The response object."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._head.created,
            "model": self._head.model,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            **self.plan.echoed,
            "output": output,
            "usage": usage,
        }

    @property
    def status(self) -> str:
        """How a response ended."""
        return "incomplete" if self.last.finish_reason == "length" else "completed"

    def finished(self, output: Output, usage: Usage) -> dict[str, Any]:
        """The response at its end, which is stored if the body wants that."""
        value = self.value(self.status, output.items, _usage(usage, output.reasoning_tokens))
        if self.plan.items is not None:
            items = msgspec.json.encode([*json.loads(self.plan.items), *output.items])
            self._store.keep(self._head.tenant, self.id, msgspec.json.encode(value), items)
        return value


class TypedEvents:
    """The typed events of one response."""

    def __init__(self, head: Head[ResponsePlan], store: ResponseStore) -> None:
        self._response = ResponseBuilder(head, store)
        self._output = Output(head.parsed.own)
        self._number = 0

    def begin(self) -> bytes:
        """`response.created` and `response.in_progress`."""
        begun = self._response.value("in_progress", [], None)
        return self._sent({"type": f"response.{name}", "response": begun} for name in ("created", "in_progress"))

    def piece(self, _: int, piece: Piece) -> bytes:
        """Events for what the piece adds."""
        self._response.last = piece
        return self._sent(self._output.piece(piece))

    def keep_alive(self, awaited: str) -> bytes:
        """A comment."""
        return f": waiting, {awaited}\n\n".encode()

    def end(self, usage: Usage) -> bytes:
        """The end of the last item, and the whole response."""
        status = self._response.status
        events = self._output.close(status)
        ended = self._response.finished(self._output, usage)
        return self._sent([*events, {"type": f"response.{status}", "response": ended}])

    def error(self, error: ErrorInfo) -> bytes:
        """`response.failed`, with the error."""
        code = "server_error" if error.status >= 500 else _CODES.get(error.status, "invalid_prompt")
        failed = {**self._response.value("failed", self._output.items, None), "incomplete_details": None}
        failed["error"] = {"code": code, "message": error.message}
        return self._sent([{"type": "response.failed", "response": failed}])

    def _sent(self, events: Any) -> bytes:
        sent = b""
        for event in events:
            numbered = {"type": event["type"], "sequence_number": self._number, **event}
            sent += b"event: " + event["type"].encode() + b"\ndata: " + msgspec.json.encode(numbered) + b"\n\n"
            self._number += 1
        return sent


class ResponseObject:
    """Collects one response."""

    def __init__(self, head: Head[ResponsePlan], store: ResponseStore) -> None:
        self._response = ResponseBuilder(head, store)
        self._output = Output(head.parsed.own)

    def piece(self, _: int, piece: Piece) -> None:
        """Take a piece."""
        self._response.last = piece
        self._output.piece(piece)

    def body(self, usage: Usage) -> bytes:
        """The response object."""
        self._output.close(self._response.status)
        return msgspec.json.encode(self._response.finished(self._output, usage))


def _input(arguments: str) -> str:
    """The text for a tool that takes one; all that the model wrote if that is not the JSON it was asked for."""
    text = (json_object(arguments) or {}).get("input")
    return text if isinstance(text, str) else arguments


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _usage(usage: Usage, reasoning: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
