"""Errors in OpenAI's shape, with proper status codes."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from faasmoe.errors import EngineBusy, EngineStopped, FaasmoeError, RequestError

log = logging.getLogger(__name__)

RETRY_AFTER = "1"  # seconds


def error_body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, dict[str, str | None]]:
    """The object that OpenAI's clients look for."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status code and body for an error of this package; others are hidden behind 500."""
    if isinstance(error, RequestError):
        status = 404 if error.code == "model_not_found" else 400
        return status, error_body(str(error), "invalid_request_error", error.param, error.code)
    if isinstance(error, EngineBusy):
        return 429, error_body(str(error), "rate_limit_error", code="engine_busy")
    if isinstance(error, EngineStopped):
        return 503, error_body(str(error), "server_error", code="engine_stopped")
    if isinstance(error, FaasmoeError):
        return 500, error_body(str(error), "server_error")
    return 500, error_body("internal error; the server's log has it", "server_error")


def install(app: FastAPI) -> None:
    """Let every error of `app` leave in this shape."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"] if part != "body"]
        param = where[0] if where else None
        if first["type"] == "json_invalid":
            message, param = f"the body is not valid JSON: {first['ctx']['error']}", None
        elif first["type"] == "extra_forbidden":
            message = f"{'.'.join(where)}: this server does not know or honour this field"
        else:
            message = f"{'.'.join(where) or 'body'}: {first['msg'].removeprefix('Value error, ')}"
        return JSONResponse(error_body(message, "invalid_request_error", param), 400)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        body = error_body(str(error.detail), "invalid_request_error")
        return JSONResponse(body, error.status_code, headers=error.headers)

    @app.exception_handler(FaasmoeError)
    async def ours(_: Request, error: FaasmoeError) -> JSONResponse:
        status, body = describe(error)
        headers = {"Retry-After": RETRY_AFTER} if status in (429, 503) else None
        return JSONResponse(body, status, headers=headers)

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        log.error("unexpected %s", type(error).__name__)  # its message may quote a tenant's text
        status, body = describe(error)
        return JSONResponse(body, status)
