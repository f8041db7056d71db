"""Refuses requests that a model or its memory cannot run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from faasmoe.errors import RequestError
from faasmoe.protocol.request import GenerationRequest


def check_request(request: GenerationRequest, vocabulary: int, limits: Mapping[str, int]) -> None:
    """Raises `RequestError` naming the field that cannot be run.

    `limits` are the most tokens that prompt and completion may have together, each with the beginning of a sentence
    about it, such as "the maximum context length is".
    """
    prompt, more = len(request.prompt), request.params.max_tokens
    if prompt == 0:
        raise RequestError("the prompt is empty", param="prompt")
    _check_tokens("prompt", request.prompt, vocabulary)
    _check_tokens("logit_bias", [token for token, _ in request.params.logit_bias], vocabulary)
    for what, most in limits.items():
        if prompt + more > most:
            raise RequestError(
                f"{what} {most} tokens; the prompt has {prompt} and max_tokens asks for {more} more: reduce the length "
                "of the messages",
                param="prompt" if prompt >= most else "max_tokens",
                code="context_length_exceeded",
            )


def _check_tokens(field: str, tokens: Sequence[int], vocabulary: int) -> None:
    for token in (min(tokens, default=0), max(tokens, default=0)):
        if not 0 <= token < vocabulary:
            raise RequestError(
                f"{field} has token {token}; this model takes token ids from 0 to {vocabulary - 1}",
                param=field,
            )
