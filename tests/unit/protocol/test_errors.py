from __future__ import annotations

import pytest

from faasmoe import errors
from faasmoe.errors import EngineBusy, EngineStopped, FaasmoeError, OptionError, RequestError
from faasmoe.protocol.errors import SentError, error_of, failure_of


@pytest.mark.parametrize(
    "error",
    [
        RequestError("too long", param="prompt", code="context_length_exceeded"),
        OptionError("the memory budget is too small"),
        EngineBusy("full", retry_after=2.5),
        EngineStopped("gone"),
    ],
)
def test_errors_arrive_as_what_they_were(error: FaasmoeError) -> None:
    there = error_of(failure_of(error))
    assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("error", [errors.FunctionError("f", "ValueError", "m"), ValueError("v\nw")])
def test_others_arrive_as_an_outage_that_says_what_it_was(error: Exception) -> None:
    there = error_of(failure_of(error))
    assert type(there) is EngineStopped
    assert "ValueError" in str(there)
    assert "\n" not in str(there)


@pytest.mark.parametrize("kind", ["brief", "annotations", "Exception", "FunctionError", ""])
def test_kinds_that_are_no_errors_of_ours_are_an_outage(kind: str) -> None:
    assert type(error_of(SentError(kind, "m", {}))) is EngineStopped


def test_fields_of_another_version_do_not_hurt() -> None:
    assert type(error_of(SentError("RequestError", "m", {"news": 1}))) is EngineStopped
