"""Messages as responses, whole and as the events of a stream."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from faasmoe.api.anthropic.errors import error_body
from faasmoe.api.chat.call_id import call_id
from faasmoe.api.chat.deltas import CallStart, Content, Delta, Reasoning
from faasmoe.api.chat.json_scanner import json_object
from faasmoe.api.chat.reply import ReplyFormat, ReplyParts, ReplyReader
from faasmoe.api.interface import ErrorInfo, Head, Usage
from faasmoe.protocol.request import Piece

_PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def new_call_id() -> str:
    """An id of a call in this API's form."""
    return call_id().replace("call_", "toolu_")


class MessageStream:
    """The events of one message: its start, blocks one after the other, its end."""

    def __init__(self, head: Head[ReplyFormat]) -> None:
        self._head = head
        self._reply = ReplyReader(head.parsed.own, new_call_id)
        self._last = Piece("", 0)
        self._kind: str | None = None  # of the open block
        self._index = -1
        self._thought = hashlib.sha256()

    def begin(self) -> bytes:
        """`message_start`."""
        message = {**_envelope(self._head), "content": [], "stop_reason": None, "stop_sequence": None}
        return _event("message_start", message={**message, "usage": _usage(Usage(self._head.prompt_tokens, 0))})

    def piece(self, _: int, piece: Piece) -> bytes:
        """Events for what the piece adds."""
        self._last = piece
        return b"".join(map(self._delta, self._reply.piece(piece)))

    def keep_alive(self, _: str) -> bytes:
        """A ping, which clients skip."""
        return _PING

    def end(self, usage: Usage) -> bytes:
        """The end of the last block, why the message ended, and its usage."""
        ended = _stop(self._last, called=self._reply.called)
        return (
            (b"" if self._index >= 0 else self._open("text", {"type": "text", "text": ""}))
            + self._close()
            + _event("message_delta", delta=ended, usage=_usage(usage))
            + _event("message_stop")
        )

    def error(self, error: ErrorInfo) -> bytes:
        """The last event of a stream that fails."""
        told = error_body(error)
        return b"event: error\ndata: " + msgspec.json.encode(told) + b"\n\n"

    def _delta(self, delta: Delta) -> bytes:
        if isinstance(delta, Content):
            return self._more("text", {"text": ""}, {"type": "text_delta", "text": delta.text})
        if isinstance(delta, Reasoning):
            self._thought.update(delta.text.encode())
            empty = {"thinking": "", "signature": ""}
            return self._more("thinking", empty, {"type": "thinking_delta", "thinking": delta.text})
        if isinstance(delta, CallStart):
            block: dict[str, Any] = {"type": "tool_use", "id": delta.id, "name": delta.name, "input": {}}
            return self._close() + self._open("tool_use", block)
        return self._change({"type": "input_json_delta", "partial_json": delta.text})

    def _more(self, kind: str, empty: dict[str, Any], change: dict[str, Any]) -> bytes:
        opened = b"" if self._kind == kind else self._close() + self._open(kind, {"type": kind, **empty})
        return opened + self._change(change)

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        self._kind = kind
        self._index += 1
        return _event("content_block_start", index=self._index, content_block=block)

    def _change(self, change: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=change)

    def _close(self) -> bytes:
        if self._kind is None:
            return b""
        signed = b""
        if self._kind == "thinking":
            signed = self._change({"type": "signature_delta", "signature": self._thought.hexdigest()})
        self._kind = None
        return signed + _event("content_block_stop", index=self._index)


class WholeMessage:
    """Collects one message."""

    def __init__(self, head: Head[ReplyFormat]) -> None:
        self._head = head
        self._reply = ReplyReader(head.parsed.own, new_call_id)
        self._parts = ReplyParts()
        self._last = Piece("", 0)

    def piece(self, _: int, piece: Piece) -> None:
        """Take a piece."""
        self._last = piece
        self._parts.add(self._reply.piece(piece))

    def body(self, usage: Usage) -> bytes:
        """The message."""
        its = self._parts
        content: list[dict[str, Any]] = []
        if its.reasoning:
            signature = hashlib.sha256(its.reasoning.encode()).hexdigest()
            content.append({"type": "thinking", "thinking": its.reasoning, "signature": signature})
        if its.content or not (content or its.calls):
            content.append({"type": "text", "text": its.content})
        content += [
            {"type": "tool_use", "id": call["id"], "name": call["name"], "input": _input(call["arguments"])}
            for call in its.calls
        ]
        ended = _stop(self._last, called=self._reply.called)
        return msgspec.json.encode({**_envelope(self._head), "content": content, **ended, "usage": _usage(usage)})


def _input(arguments: str) -> dict[str, Any]:
    """Arguments as an object; those that are none, as a model may write them, are in its field `arguments`."""
    value = json_object(arguments)
    return {"arguments": arguments} if value is None else value


def _envelope(head: Head[ReplyFormat]) -> dict[str, Any]:
    return {"id": head.id.replace("-", "_", 1), "type": "message", "role": "assistant", "model": head.model}


def _stop(piece: Piece, *, called: bool) -> dict[str, Any]:
    reason = "max_tokens" if piece.finish_reason == "length" else "tool_use" if called else "end_turn"
    if piece.stop is not None:
        reason = "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": piece.stop}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"
