"""Completions and chat completions: bodies to parsed requests, and pieces to chunks and whole responses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from faasmoe.api.bodies.fields import MAX_CHOICES
from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.chat.chat import prepared
from faasmoe.api.interface import ErrorInfo, Head, ResponseStream, Usage, WholeResponse, WithoutStore
from faasmoe.api.openai.errors import error_body
from faasmoe.api.openai.responses import CHAT_FORM, COMPLETION_FORM, Form, ResponseChoice, ResponseFields
from faasmoe.api.openai.schema import ChatBody, CompletionBody, GenerationBody
from faasmoe.api.parsed_request import Bounds, ParsedRequest
from faasmoe.errors import RequestError
from faasmoe.protocol.request import Piece

_DEFAULT_TOKENS = 16  # `max_tokens` of a completion, as in OpenAI's API
_DONE = b"data: [DONE]\n\n"


class Stream:
    """A stream of chunks with one choice each, the usage if the body includes it, and `[DONE]`."""

    def __init__(self, form: Form, head: Head[ResponseFields]) -> None:
        self._form = form
        self._head = _head(form.stream_object, head)
        self._usage = head.parsed.own.stream_usage
        self._prompt_tokens, self._count = head.prompt_tokens, head.parsed.choices
        self._own = head.parsed.own
        self._choices: dict[int, ResponseChoice] = {}
        self._seen: dict[int, Piece] = {}  # the last piece of each choice

    def begin(self) -> bytes:
        """No events."""
        return b""

    def piece(self, index: int, piece: Piece) -> bytes:
        """A chunk for each part of what the piece adds."""
        if index not in self._choices:
            self._choices[index] = self._form.choice(self._own)
        deltas = self._choices[index].deltas(index, piece)
        self._seen[index] = piece
        usage = self._usage_so_far() if deltas else {}
        return b"".join(_event({**self._head, "choices": [delta], **usage}) for delta in deltas)

    def keep_alive(self, awaited: str) -> bytes:
        """A comment: there is no event that OpenAI's clients skip."""
        return f": waiting, {awaited}\n\n".encode()

    def end(self, usage: Usage) -> bytes:
        """The chunk with the usage, if the body includes it, and `[DONE]`."""
        if self._usage == "none":
            return _DONE
        return _event({**self._head, "choices": [], "usage": _usage(usage, self._choices.values())}) + _DONE

    def error(self, error: ErrorInfo) -> bytes:
        """The error in the shape of error responses."""
        return _event(error_body(error))

    def _usage_so_far(self) -> dict[str, Any]:
        if self._usage == "none":
            return {}
        if self._usage == "last":
            return {"usage": None}
        tokens = sum(piece.tokens for piece in self._seen.values())
        cached = sum(piece.cached_tokens for index, piece in self._seen.items() if index % self._count == 0)
        return {"usage": _usage(Usage(self._prompt_tokens, tokens, cached), self._choices.values())}


class Whole:
    """A whole response: all choices, each with all of its text and log-probabilities."""

    def __init__(self, form: Form, head: Head[ResponseFields]) -> None:
        self._form = form
        self._head = _head(form.object, head)
        count = len(head.parsed.prompts) * head.parsed.choices
        self._choices = [form.choice(head.parsed.own) for _ in range(count)]

    def piece(self, index: int, piece: Piece) -> None:
        """Add a piece to a choice."""
        self._choices[index].add(piece)

    def body(self, usage: Usage) -> bytes:
        """The response object."""
        choices = [choice.value(index) for index, choice in enumerate(self._choices)]
        return msgspec.json.encode({**self._head, "choices": choices, "usage": _usage(usage, self._choices)})


class _Endpoint(WithoutStore):
    """The common part of both endpoints."""

    schema: type[GenerationBody]
    own = ResponseFields

    def __init__(self, form: Form) -> None:
        self._form = form
        self.name: str = form.name
        self.path = form.path
        self.id_prefix = form.prefix

    def stream(self, head: Head[ResponseFields]) -> ResponseStream:
        """See `Endpoint`."""
        return Stream(self._form, head)

    def whole(self, head: Head[ResponseFields]) -> WholeResponse:
        """See `Endpoint`."""
        return Whole(self._form, head)


class Completions(_Endpoint):
    """POST /v1/completions."""

    schema = CompletionBody

    def read(self, body: CompletionBody, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[ResponseFields]:
        """See `Endpoint`."""
        prompt = body.prompt
        several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
        _check_choices(len(prompt) if several else 1, body.choices)
        limit = _DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        return _parsed(body, prompts.prompts(prompt), limit, prompts, bounds)


class ChatCompletions(_Endpoint):
    """POST /v1/chat/completions."""

    schema = ChatBody

    def read(self, body: ChatBody, prompts: PromptReader, bounds: Bounds) -> ParsedRequest[ResponseFields]:
        """See `Endpoint`."""
        chat = body.chat()
        asked = prepared(chat, prompts, body.sampling(1, bounds.defaults))
        parsed = _parsed(body, [asked.prompt], body.limit, prompts, bounds)
        params = replace(asked.params, max_tokens=parsed.params.max_tokens)
        return replace(parsed, params=params, own=replace(parsed.own, reply=asked.reply))


def _parsed(
    body: GenerationBody, ids: Sequence[list[int]], limit: int | None, prompts: PromptReader, bounds: Bounds
) -> ParsedRequest[ResponseFields]:
    room = max(1, bounds.max_model_len - min(map(len, ids)))
    most = room if limit is None else min(limit, room)
    params = body.sampling(most, bounds.defaults)
    prompts.check([token for token, _ in params.logit_bias], "logit_bias")
    return ParsedRequest(
        prompts=tuple(map(tuple, ids)),
        params=params,
        choices=body.choices,
        limited=limit is not None,
        stream=bool(body.stream),
        priority=body.priority,
        end_user=body.end_user,
        own=ResponseFields(body.stream_usage, body.tier),
    )


def _check_choices(prompts: int, choices: int) -> None:
    if prompts * choices > MAX_CHOICES:
        raise RequestError(
            f"{prompts} prompts with n={choices}: one request gets at most {MAX_CHOICES} answers",
            param="prompt" if prompts > MAX_CHOICES else "n",
        )


def _head(kind: str, head: Head[ResponseFields]) -> dict[str, Any]:
    found = {"id": head.id, "object": kind, "created": head.created, "model": head.model}
    tier = head.parsed.own.service_tier
    return found if tier is None else {**found, "service_tier": tier}


def _usage(usage: Usage, choices: Iterable[ResponseChoice]) -> dict[str, Any]:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    reasoning = [choice.reasoning_tokens for choice in choices if choice.reasoning_tokens is not None]
    details = {"completion_tokens_details": {"reasoning_tokens": sum(reasoning)}} if reasoning else {}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        **details,
    }


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


COMPLETION = Completions(COMPLETION_FORM)
CHAT = ChatCompletions(CHAT_FORM)
