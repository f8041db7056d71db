"""Errors in OpenAI's shape, with proper status codes."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from faasmoe.api.bodies.complaints import refusal_of
from faasmoe.api.http import request_log
from faasmoe.errors import (
    DatabaseError,
    EngineBusy,
    EngineStopped,
    FaasmoeError,
    LimitExceeded,
    NameTaken,
    NoSuchName,
    PlatformError,
    RequestError,
    ServingError,
    TenancyError,
    Unauthenticated,
    WrongHost,
)

log = logging.getLogger(__name__)

RETRY_AFTER = 1  # seconds, where nobody knows better


def error_body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, dict[str, str | None]]:
    """The object that OpenAI's clients look for."""
    request_log.note(code or kind)
    message = message.encode(errors="backslashreplace").decode()  # it may quote what is not Unicode
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


_ANSWERS: tuple[tuple[type[FaasmoeError], int, str, str | None], ...] = (  # error: status, type, code
    (Unauthenticated, 401, "invalid_request_error", "invalid_api_key"),
    (WrongHost, 403, "invalid_request_error", "wrong_host"),
    (NoSuchName, 404, "invalid_request_error", None),
    (NameTaken, 409, "invalid_request_error", None),
    (TenancyError, 400, "invalid_request_error", None),
    (EngineBusy, 429, "rate_limit_error", "engine_busy"),
)
_OUTAGES: tuple[tuple[type[Exception], int, str | None, str], ...] = (  # error: status, code, text for clients
    (DatabaseError, 503, None, "the database cannot be used now; the server's log says why"),
    (PlatformError, 503, None, "a function could not be run; the server's log says why"),
    (EngineStopped, 503, "engine_stopped", "the request could not be run to its end; the server's log says why"),
    (Exception, 500, None, "internal error; the server's log has it"),
)
_SAYABLE = (EngineStopped, ServingError)  # exactly these: their texts are this server's own, as far as they go
_LONGEST = 300  # characters of such a text


def describe(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status code and body for an error. What is of the server and not of the request is logged, and hidden."""
    if isinstance(error, RequestError):
        status = 404 if error.code == "model_not_found" else 400
        return status, error_body(str(error), "invalid_request_error", error.param, error.code)
    if isinstance(error, LimitExceeded):
        kind = error.code if error.code == "insufficient_quota" else error.limit
        return 429, error_body(str(error), kind, code=error.code)
    for kinds, status, kind, code in _ANSWERS:
        if isinstance(error, kinds):
            return status, error_body(str(error), kind, code=code)
    return _outage(error)


def _outage(error: Exception) -> tuple[int, dict[str, Any]]:
    """Something of the server failed. Its message may name files and addresses, which clients must not learn."""
    status, code, text = next(answer[1:] for answer in _OUTAGES if isinstance(error, answer[0]))
    message = str(error)
    if type(error) in _SAYABLE and len(message) <= _LONGEST and "/" not in message:
        text = message
    elif isinstance(error, FaasmoeError):
        log.error("%s: %s", type(error).__name__, message, extra=request_log.whose())
    else:  # the message may quote a tenant's text
        log.error("unexpected %s", type(error).__name__, extra=request_log.whose())
    return status, error_body(text, "server_error", code=code)


def headers(error: Exception) -> dict[str, str] | None:
    """When to try again, for errors that are about the moment; and what a 401 has to say."""
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, LimitExceeded):
        return _when(error)
    if isinstance(error, EngineBusy) and error.retry_after is not None:
        return {"Retry-After": str(max(RETRY_AFTER, math.ceil(error.retry_after)))}
    if isinstance(error, (EngineBusy, EngineStopped, DatabaseError, PlatformError)):
        return {"Retry-After": str(RETRY_AFTER)}
    return None


def _when(error: LimitExceeded) -> dict[str, str]:
    """OpenAI's clients try again by themselves after 429, unless told not to."""
    found = {}
    if error.retry_after is not None:
        found["Retry-After"] = str(max(RETRY_AFTER, math.ceil(error.retry_after)))
    if error.retry_after is None or error.code == "insufficient_quota":
        found["x-should-retry"] = "false"
    return found


def install(app: FastAPI) -> None:
    """Let every error of `app` leave in this shape."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        status, body = describe(refusal_of(error.errors()))
        return JSONResponse(body, status)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        body = error_body(str(error.detail), "invalid_request_error")
        return JSONResponse(body, error.status_code, headers=error.headers)

    @app.exception_handler(FaasmoeError)
    async def ours(_: Request, error: FaasmoeError) -> JSONResponse:
        status, body = describe(error)
        return JSONResponse(body, status, headers=headers(error))

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        status, body = describe(error)
        return JSONResponse(body, status)
