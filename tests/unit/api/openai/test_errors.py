from __future__ import annotations

import pytest

from faasmoe import errors
from faasmoe.api.errors import describe
from faasmoe.api.openai.errors import error_body, error_headers

WAITS = errors.LimitExceeded("x", code="rate_limit_exceeded", limit="tokens", retry_after=2.5)
NEVER = errors.LimitExceeded("x", code="rate_limit_exceeded", limit="requests", retry_after=None)
SPENT = errors.LimitExceeded("x", code="insufficient_quota", limit="budget", retry_after=None)
NO_RETRY = {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("error", "kind", "code", "headers"),
    [
        (errors.RequestError("x", param="p"), "invalid_request_error", None, {}),
        (errors.Unauthenticated("x"), "invalid_request_error", "invalid_api_key", {"WWW-Authenticate": "Bearer"}),
        (errors.WrongHost("x"), "invalid_request_error", "wrong_host", {}),
        (errors.NoSuchName("x"), "invalid_request_error", None, {}),
        (WAITS, "tokens", "rate_limit_exceeded", {}),
        (NEVER, "requests", "rate_limit_exceeded", NO_RETRY),
        (SPENT, "insufficient_quota", "insufficient_quota", NO_RETRY),
        (errors.EngineBusy("x"), "rate_limit_error", "engine_busy", {}),
        (errors.EngineStopped("x"), "server_error", "engine_stopped", {}),
        (errors.DatabaseError("x"), "server_error", None, {}),
        (LookupError("x"), "server_error", None, {}),
    ],
)
def test_errors_have_the_type_that_openais_clients_know(
    error: Exception, kind: str, code: str | None, headers: dict[str, str]
) -> None:
    info = describe(error)
    told = error_body(info)["error"]
    assert (told["type"], told["code"], error_headers(info)) == (kind, code, headers)
    assert set(told) == {"message", "type", "param", "code"}
