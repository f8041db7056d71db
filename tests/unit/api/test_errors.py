from __future__ import annotations

import logging

import pytest

from faasmoe import errors
from faasmoe.api.errors import describe

PATH = "/run/user/1000/faasmoe/model.safetensors"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.EngineStopped(f"cannot map {PATH}: No such file"), 503, "engine_stopped"),
        (errors.PlatformError("local", "f", f"no daemon at {PATH}"), 503, None),
        (errors.DeadlineExceeded("local", "f", f"no answer of {PATH}"), 503, None),
        (errors.FunctionError("f", "OSError", f"{PATH} is gone"), 500, None),
        (errors.DatabaseError(f"sqlite:///{PATH}: locked"), 503, None),
        (errors.CheckpointError(f"{PATH} is damaged"), 500, None),
        (errors.MessageError(f"bad message from {PATH}"), 500, None),
        (errors.ServingError(f"{PATH} is gone"), 500, None),
        (errors.OptionError(f"--database {PATH}"), 500, None),
    ],
)
def test_clients_learn_no_paths_and_the_log_does(
    error: errors.FaasmoeError, status: int, code: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    told = describe(error)
    assert (told.status, told.code) == (status, code)
    assert "/" not in told.message
    assert PATH in caplog.text
    assert (told.retry_after is not None) == (status == 503)


@pytest.mark.parametrize("error", [OSError(2, "no", PATH), LookupError("a tenant's words")])
def test_other_errors_are_told_by_their_type_alone(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    told = describe(error)
    assert (told.status, told.message) == (500, "internal error; the server's log has it")
    assert type(error).__name__ in caplog.text
    assert PATH not in caplog.text
    assert "words" not in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.EngineStopped("the server is shutting down"), 503),
        (errors.ServingError("the client reads too slowly"), 500),
        (errors.EngineBusy("too many requests wait"), 429),
        (errors.RequestError("model: 'a/b' does not exist"), 400),
    ],
)
def test_texts_that_say_nothing_of_the_machine_are_told(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told = describe(error)
    assert (told.status, told.message) == (status, str(error))
    assert not caplog.records
