"""Errors in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from faasmoe.api.interface import ErrorInfo


def error_body(error: ErrorInfo) -> dict[str, Any]:
    """The object that OpenAI's clients look for."""
    told = {"message": error.message, "type": error_type(error), "param": error.param, "code": error.code}
    return {"error": told}


def error_type(error: ErrorInfo) -> str:
    """OpenAI's class of an error; for rate limits it is the limit."""
    if error.status >= 500:
        return "server_error"
    if error.status != 429:
        return "invalid_request_error"
    return "insufficient_quota" if error.code == "insufficient_quota" else error.limit or "rate_limit_error"


def error_headers(error: ErrorInfo) -> dict[str, str]:
    """The scheme of keys for 401. OpenAI's clients retry by themselves after 429, unless a header forbids it."""
    if error.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {} if error.retry else {"x-should-retry": "false"}
