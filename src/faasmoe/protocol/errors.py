"""Errors of an orchestrator: as they travel to the gateway, and in the words that clients get.

Clients get no paths of the server and no messages of libraries.
"""

from __future__ import annotations

from typing import Any

import msgspec

from faasmoe import errors
from faasmoe.errors import (
    DeadlineExceeded,
    EngineBusy,
    EngineStopped,
    FaasmoeError,
    FunctionError,
    PlatformError,
    UserError,
    brief,
)

FAILED = "the orchestrator has failed; try again"
ENDING = "the orchestrator is shutting down"
NOT_FINITE = "the model computed what is no number; its weights, or their sums in this data type, are at fault"


class SentError(msgspec.Struct, frozen=True, array_like=True):
    """An error of `faasmoe.errors` as it travels."""

    kind: str
    message: str
    fields: dict[str, str | float | None]


def failure_of(error: Exception) -> SentError:
    """The form in which an error travels. All but `UserError`, `EngineBusy` and `EngineStopped` arrive as the last."""
    kind = type(error).__name__
    if _travels(kind):
        fields = {key: value for key, value in vars(error).items() if _simple(value)}
        return SentError(kind, str(error), fields)
    message = str(error) if isinstance(error, FaasmoeError) else f"{kind}: {brief(error)}"
    return SentError(EngineStopped.__name__, message, {})


def error_of(sent: SentError) -> FaasmoeError:
    """The error that `failure_of` was given; `EngineStopped` if this version does not know its kind or its fields."""
    if not _travels(sent.kind):
        return EngineStopped(sent.message)
    kind: Any = getattr(errors, sent.kind)
    try:
        error: FaasmoeError = kind(sent.message, **sent.fields)
    except TypeError:  # fields of another version
        error = EngineStopped(sent.message)
    return error


def _travels(kind: str) -> bool:
    """True for errors that are made of a message and simple fields."""
    found = getattr(errors, kind, None)
    return isinstance(found, type) and issubclass(found, (UserError, EngineBusy, EngineStopped))


def _simple(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float))


def client_message(error: Exception) -> str:
    """The message for the client of a request that ended with `error`. The log has the details."""
    if isinstance(error, DeadlineExceeded):
        return f"function {error.function} of the model did not answer in time; try again"
    if isinstance(error, FunctionError | PlatformError):
        return f"function {error.function} of the model could not be run; the server's log says why"
    if isinstance(error, FaasmoeError):
        return str(error)
    return "the request could not be run: an internal error; the server's log has it"
