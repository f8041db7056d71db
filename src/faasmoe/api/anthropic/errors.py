"""Errors in Anthropic's shape (https://docs.anthropic.com/en/api/errors)."""

from __future__ import annotations

from typing import Any

from faasmoe.api.interface import ErrorInfo

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_body(error: ErrorInfo) -> dict[str, Any]:
    """The object that Anthropic's clients look for."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    message = error.message
    if error.code == "context_length_exceeded":  # words by which Claude Code knows that it has to cut
        message = f"prompt is too long: {message}"
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": error.request_id}
