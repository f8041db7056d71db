"""Errors in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from faasmoe.api.interface import Failure


def error_body(failure: Failure) -> dict[str, Any]:
    """The object that OpenAI's clients look for."""
    told = {"message": failure.message, "type": error_type(failure), "param": failure.param, "code": failure.code}
    return {"error": told}


def error_type(failure: Failure) -> str:
    """OpenAI's class of an error; for rate limits it is the limit."""
    if failure.status >= 500:
        return "server_error"
    if failure.status != 429:
        return "invalid_request_error"
    return "insufficient_quota" if failure.code == "insufficient_quota" else failure.limit or "rate_limit_error"


def error_headers(failure: Failure) -> dict[str, str]:
    """The scheme of keys for 401. OpenAI's clients retry by themselves after 429, unless a header forbids it."""
    if failure.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {} if failure.retry else {"x-should-retry": "false"}
