"""Errors in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from faasmoe.api.interface import Failure


def error_body(failure: Failure) -> dict[str, Any]:
    """The object that OpenAI's clients look for."""
    told = {"message": failure.message, "type": failure.type, "param": failure.param, "code": failure.code}
    return {"error": told}


def error_headers(failure: Failure) -> dict[str, str]:
    """The scheme of keys for 401; and OpenAI's clients try again by themselves after 429, unless told not to."""
    if failure.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {} if failure.retry else {"x-should-retry": "false"}
