"""Everything that FaaSMoE raises on purpose.

    FaasmoeError
     ├─ UserError             what the user gave cannot work; the message says what would
     │   ├─ OptionError         an option's value is out of range
     │   ├─ CheckpointError     a checkpoint's files are missing, damaged or inconsistent
     │   │   └─ CheckpointChanged a file is no longer the one that was loaded (its message holds no folder)
     │   ├─ UnsupportedModel    a sound checkpoint of a model that cannot be served
     │   ├─ RequestError        an API request that cannot be honoured (carries the field)
     │   ├─ Unauthenticated     an API request without a key that is good for it
     │   ├─ WrongHost           a request to an open server by a name that is not this machine's own
     │   └─ TenancyError        a tenant, key or price that cannot be as it was asked for
     │       ├─ NoSuchName        there is none of that name
     │       └─ NameTaken         there is or was one of that name
     ├─ MeasurementError      something cannot be measured here
     └─ ServingError          something failed while serving
         ├─ PayloadError        an envelope between orchestrator and function is malformed
         ├─ MessageError        a message between gateway and orchestrator is malformed
         ├─ FunctionError       a function answered with an error (carries function and cause)
         ├─ PlatformError       the platform could not run a function (carries function and cause)
         │   ├─ DeadlineExceeded  no answer within the deadline
         │   └─ UnknownFunction   the function was never deployed, or was removed
         ├─ DatabaseError       the database of tenants cannot be used now
         ├─ LimitExceeded       a tenant's limit is reached (carries when to come again)
         ├─ EngineBusy          too many requests wait already; try later
         └─ EngineStopped       the orchestrator is shutting down, or has failed
             └─ ProcessLost       a process of this server has died or does not answer; the next try starts another

Commands print a `UserError` as one line and exit with 2; anything else is a defect or an outage.
"""

from __future__ import annotations

_LONGEST_CAUSE = 300  # characters of a library's message that are worth repeating


def brief(error: BaseException) -> str:
    """A library's error on one line, for the end of one of ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_CAUSE else f"{text[:_LONGEST_CAUSE]} ..."


class FaasmoeError(Exception):
    """Base of all errors of this package."""


class UserError(FaasmoeError):
    """An error that the user can correct."""


class OptionError(UserError):
    """An option's value is out of range."""


class CheckpointError(UserError):
    """A checkpoint's files are missing, damaged or inconsistent."""


class CheckpointChanged(CheckpointError):
    """A file of a checkpoint that is in use was replaced, written to, cut short or removed.

    Clients of a server read the message: it names the file without its folder, and says what to do.
    """


class UnsupportedModel(UserError):
    """A sound checkpoint of a model that cannot be served."""


class RequestError(UserError):
    """An API request that cannot be honoured.

    `param` names the field of the request body, `code` is the machine-readable reason in OpenAI's style.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class Unauthenticated(UserError):
    """An API request without a key that is good for it."""


class WrongHost(UserError):
    """A request to an open server by a name that is not this machine's own."""


class TenancyError(UserError):
    """A tenant, key or price that cannot be as it was asked for."""


class NoSuchName(TenancyError):
    """There is no tenant or key of that name."""


class NameTaken(TenancyError):
    """There is or was a tenant of that name."""


class MeasurementError(FaasmoeError):
    """Something cannot be measured here."""


class ServingError(FaasmoeError):
    """Something failed while serving."""


class PayloadError(ServingError):
    """An envelope between orchestrator and function is malformed."""


class MessageError(ServingError):
    """A message between gateway and orchestrator is malformed."""


class FunctionError(ServingError):
    """A function answered with an error."""

    def __init__(self, function: str, kind: str, message: str) -> None:
        super().__init__(f"function {function} failed with {kind}: {message}")
        self.function = function
        self.kind = kind


class PlatformError(ServingError):
    """The platform could not run a function."""

    def __init__(self, platform: str, function: str, cause: str) -> None:
        super().__init__(f"platform {platform}, function {function}: {cause}")
        self.platform = platform
        self.function = function
        self.cause = cause


class DeadlineExceeded(PlatformError):
    """No answer within the deadline."""


class UnknownFunction(PlatformError):
    """The function was never deployed, or was removed."""


class DatabaseError(ServingError):
    """The database of tenants cannot be used now."""


class LimitExceeded(ServingError):
    """A tenant's limit is reached. `retry_after` is in seconds, None if the same request can never be taken.

    `code` is the machine-readable reason in OpenAI's style, `limit` says which limit in a word.
    """

    def __init__(self, message: str, *, code: str, limit: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.code = code
        self.limit = limit
        self.retry_after = retry_after


class EngineBusy(ServingError):
    """Too many requests wait already; try later: after `retry_after` seconds, if that can be told."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


SHUTTING_DOWN = "the server is shutting down"


class EngineStopped(ServingError):
    """The orchestrator is shutting down, or has failed."""


class ProcessLost(EngineStopped):
    """A process of this server has died or does not answer; the next try starts another."""
