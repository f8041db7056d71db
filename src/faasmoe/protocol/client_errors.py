"""Error messages for clients: without paths of the server, and without messages of libraries."""

from __future__ import annotations

from faasmoe.errors import DeadlineExceeded, FaasmoeError, FunctionError, PlatformError

FAILED = "the orchestrator has failed; try again"
ENDING = "the orchestrator is shutting down"
NOT_FINITE = "the model computed what is no number; its weights, or their sums in this data type, are at fault"


def client_message(error: Exception) -> str:
    """For the client of a request that ended with `error`. The log has the rest."""
    if isinstance(error, DeadlineExceeded):
        return f"function {error.function} of the model did not answer in time; try again"
    if isinstance(error, FunctionError | PlatformError):
        return f"function {error.function} of the model could not be run; the server's log says why"
    if isinstance(error, FaasmoeError):
        return str(error)
    return "the request could not be run: an internal error; the server's log has it"
