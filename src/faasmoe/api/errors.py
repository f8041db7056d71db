"""Turns exceptions into HTTP responses, in the shape of the API that was called."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from faasmoe.api import request_log
from faasmoe.api.bodies.validation_errors import refusal_of
from faasmoe.api.interface import API, ErrorInfo
from faasmoe.api.registry import APIS, Registry
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

RETRY_AFTER = 1  # seconds, if the error names none

_REFUSALS: tuple[tuple[type[FaasmoeError], int, str | None], ...] = (  # error: status, code
    (Unauthenticated, 401, "invalid_api_key"),
    (WrongHost, 403, "wrong_host"),
    (NoSuchName, 404, None),
    (NameTaken, 409, None),
    (TenancyError, 400, None),
    (EngineBusy, 429, "engine_busy"),
)
_OUTAGES: tuple[tuple[type[Exception], int, str | None, str], ...] = (  # error: status, code, text for clients
    (DatabaseError, 503, None, "the database cannot be used now; the server's log says why"),
    (PlatformError, 503, None, "a function could not be run; the server's log says why"),
    (EngineStopped, 503, "engine_stopped", "the request could not be run to its end; the server's log says why"),
    (Exception, 500, None, "internal error; the server's log has it"),
)
_PUBLIC = (EngineStopped, ServingError)  # exactly these classes: this server has written their messages itself
_LONGEST = 300  # characters of such a message
_TEMPORARY = (EngineBusy, EngineStopped, DatabaseError, PlatformError)


def describe(error: Exception) -> ErrorInfo:
    """Describe an error for clients. The message of an error in the server itself is logged and not sent."""
    if isinstance(error, RequestError):
        status = 404 if error.code == "model_not_found" else 400
        return error_info(status, str(error), param=error.param, code=error.code)
    if isinstance(error, LimitExceeded):
        retry = error.retry_after is not None and error.code != "insufficient_quota"
        wait = _retry_after(error)
        return error_info(429, str(error), code=error.code, limit=error.limit, retry_after=wait, retry=retry)
    for kinds, status, code in _REFUSALS:
        if isinstance(error, kinds):
            return error_info(status, str(error), code=code, retry_after=_retry_after(error))
    return _outage(error)


def error_info(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    limit: str | None = None,
    retry_after: int | None = None,
    retry: bool = True,
) -> ErrorInfo:
    """Make the description of an error, and note it for the request log. `message` may quote lone surrogates."""
    request_log.note(status, code)
    text = message.encode(errors="backslashreplace").decode()
    return ErrorInfo(
        status=status,
        message=text,
        param=param,
        code=code,
        limit=limit,
        retry_after=retry_after,
        request_id=request_log.log_fields().get("request"),
        retry=retry,
    )


def _outage(error: Exception) -> ErrorInfo:
    """Describe an error in the server itself. Its message may name files and addresses, so it is not sent."""
    status, code, text = next(answer[1:] for answer in _OUTAGES if isinstance(error, answer[0]))
    message = str(error)
    if type(error) in _PUBLIC and len(message) <= _LONGEST and "/" not in message:
        text = message
    elif isinstance(error, FaasmoeError):
        log.error("%s: %s", type(error).__name__, message, extra=request_log.log_fields())
    else:  # not the message: it may quote a tenant's text
        log.error("unexpected %s", type(error).__name__, extra=request_log.log_fields())
    return error_info(status, text, code=code, retry_after=_retry_after(error))


def _retry_after(error: Exception) -> int | None:
    """Seconds after which the request may be sent again; None for errors that stay."""
    if isinstance(error, LimitExceeded | EngineBusy) and error.retry_after is not None:
        return max(RETRY_AFTER, math.ceil(error.retry_after))
    return RETRY_AFTER if isinstance(error, _TEMPORARY) else None


def respond(api: API, told: ErrorInfo, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The HTTP response for an error, in the shape of `api`."""
    when = {} if told.retry_after is None else {"Retry-After": str(told.retry_after)}
    return JSONResponse(api.error_body(told), told.status, {**when, **api.error_headers(told), **(headers or {})})


def install(app: FastAPI, apis: Registry = APIS) -> None:
    """Add exception handlers to `app` that respond in the shape of the API that was called."""

    def shaped(request: Request, told: ErrorInfo, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return respond(apis.shape(request.url.path), told, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return shaped(request, describe(refusal_of(error.errors())))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        told = error_info(error.status_code, str(error.detail))
        return shaped(request, told, error.headers)

    @app.exception_handler(FaasmoeError)
    async def ours(request: Request, error: FaasmoeError) -> JSONResponse:
        return shaped(request, describe(error))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        return shaped(request, describe(error))
