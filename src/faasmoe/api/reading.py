"""From a request's body to what it asks for: parsed, validated, texts encoded. May take long, and much memory."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import ValidationError

from faasmoe.api.asked import Asked, Bounds, Kind
from faasmoe.api.bodies.complaints import refusal_of
from faasmoe.api.bodies.prompts import Encoder, PromptReader
from faasmoe.api.bodies.structure import check_structure
from faasmoe.api.openai.schema import MAX_CHOICES, ChatBody, CompletionBody, GenerationBody
from faasmoe.errors import RequestError

B = TypeVar("B", bound=GenerationBody)

_DEFAULT_TOKENS = 16  # of a completion, as in OpenAI's API


class Reading:
    """Reads bodies for a model, with its tokenizer."""

    def __init__(self, encoder: Encoder, bounds: Bounds) -> None:
        self._bounds = bounds
        self._texts = PromptReader(encoder, bounds.vocabulary, bounds.max_model_len)

    def read(self, kind: Kind, body: bytes) -> Asked:
        """What `body` asks for. Raises `RequestError`."""
        check_structure(body, MAX_CHOICES * self._bounds.max_model_len)
        value = _parsed(body)
        return self._completion(value) if kind == "completion" else self._chat(value)

    def _completion(self, value: Any) -> Asked:
        body = self._valid(CompletionBody, value)
        prompt = body.prompt
        several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
        _check_choices(len(prompt) if several else 1, body.choices)
        limit = _DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        return self._asked(body, self._texts.prompts(prompt), limit)

    def _chat(self, value: Any) -> Asked:
        body = self._valid(ChatBody, value)
        return self._asked(
            body, [self._texts.conversation([message.plain() for message in body.messages])], body.limit
        )

    def _valid(self, kind: type[B], value: Any) -> B:
        try:
            body = kind.model_validate(value)
        except ValidationError as error:
            raise refusal_of(error.errors(include_url=False)) from None
        self._bounds.check_model(body.model)
        return body

    def _asked(self, body: GenerationBody, prompts: list[list[int]], limit: int | None) -> Asked:
        most = max(1, self._bounds.max_model_len - min(map(len, prompts))) if limit is None else limit
        params = body.sampling(most)
        self._texts.check([token for token, _ in params.logit_bias], "logit_bias")
        return Asked(
            tuple(map(tuple, prompts)),
            params,
            body.choices,
            limit is not None,
            bool(body.stream),
            body.include_usage,
            body.priority,
            body.tier,
        )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise RequestError("the body is not valid JSON: it is not UTF-8") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists within lists
        raise RequestError(
            "the body is not valid JSON: a number is too long, or something lies too deep"
        ) from None
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object")
    return value


def _check_choices(prompts: int, choices: int) -> None:
    if prompts * choices > MAX_CHOICES:
        raise RequestError(
            f"{prompts} prompts with n={choices}: one request gets at most {MAX_CHOICES} answers",
            param="prompt" if prompts > MAX_CHOICES else "n",
        )
