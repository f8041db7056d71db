"""Completions and chat completions: bodies to parsed requests, and pieces to chunks and whole responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.api.interface import ErrorInfo, Head, ResponseStream, Usage, WholeResponse
from faasmoe.api.openai.errors import error_body
from faasmoe.api.openai.fields import MAX_CHOICES
from faasmoe.api.openai.logprobs import Collected
from faasmoe.api.openai.responses import CHAT_FORM, COMPLETION_FORM, Form, ResponseFields
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
        self._prompt_tokens, self._choices = head.prompt_tokens, head.parsed.choices
        self._seen: dict[int, Piece] = {}  # the last piece of each choice

    def begin(self) -> bytes:
        """No events."""
        return b""

    def piece(self, index: int, piece: Piece) -> bytes:
        """One chunk."""
        delta = self._form.delta(index, piece, index not in self._seen)
        self._seen[index] = piece
        return _event({**self._head, "choices": [delta], **self._usage_so_far()})

    def keep_alive(self, awaited: str) -> bytes:
        """A comment: there is no event that OpenAI's clients skip."""
        return f": waiting, {awaited}\n\n".encode()

    def end(self, usage: Usage) -> bytes:
        """The chunk with the usage, if the body includes it, and `[DONE]`."""
        if self._usage == "none":
            return _DONE
        return _event({**self._head, "choices": [], "usage": _usage(usage)}) + _DONE

    def error(self, error: ErrorInfo) -> bytes:
        """The error in the shape of error responses."""
        return _event(error_body(error))

    def _usage_so_far(self) -> dict[str, Any]:
        if self._usage == "none":
            return {}
        if self._usage == "last":
            return {"usage": None}
        tokens = sum(piece.tokens for piece in self._seen.values())
        cached = sum(piece.cached_tokens for index, piece in self._seen.items() if index % self._choices == 0)
        return {"usage": _usage(Usage(self._prompt_tokens, tokens, cached))}


class Whole:
    """A whole response: all choices, each with all of its text and log-probabilities."""

    def __init__(self, form: Form, head: Head[ResponseFields]) -> None:
        self._form = form
        self._head = _head(form.object, head)
        self._choices = [_Choice(form) for _ in range(len(head.parsed.prompts) * head.parsed.choices)]

    def piece(self, index: int, piece: Piece) -> None:
        """Add a piece to a choice."""
        self._choices[index].add(piece)

    def body(self, usage: Usage) -> bytes:
        """The response object."""
        choices = [choice.value(index) for index, choice in enumerate(self._choices)]
        return msgspec.json.encode({**self._head, "choices": choices, "usage": _usage(usage)})


class _Choice:
    def __init__(self, form: Form) -> None:
        self._form = form
        self._texts: list[str] = []
        self._scores = Collected(form.scores)
        self._last = Piece("", 0)

    def add(self, piece: Piece) -> None:
        self._texts.append(piece.text)
        self._scores.add(piece.logprobs)
        self._last = piece

    def value(self, index: int) -> dict[str, Any]:
        return self._form.choice(index, replace(self._last, text="".join(self._texts)), self._scores.value())


class _Endpoint:
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
        conversation = prompts.conversation([message.plain() for message in body.messages])
        return _parsed(body, [conversation], body.limit, prompts, bounds)


def _parsed(
    body: GenerationBody, ids: Sequence[list[int]], limit: int | None, prompts: PromptReader, bounds: Bounds
) -> ParsedRequest[ResponseFields]:
    room = max(1, bounds.max_model_len - min(map(len, ids)))
    most = room if limit is None else min(limit, room)
    params = body.sampling(most)
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


def _usage(usage: Usage) -> dict[str, Any]:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


COMPLETION = Completions(COMPLETION_FORM)
CHAT = ChatCompletions(CHAT_FORM)
