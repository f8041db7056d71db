"""Messages between clients and the daemon: what each kind carries, and the errors that a request may end with.

They travel as JSON objects (`wire`); the field `kind` names the message. It is Python's JSON, since a keep-alive may
be infinite. A request is answered by one reply, but for `Activate`, which is answered by one message for each instance
that is wanted, in any order, and `Suspect`, which is not answered.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from faasmoe.platforms.base import FunctionSpec, PoolStatus
from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.msgpack import path_of_text, text_of_path

NAME = "local"  # of the platform, in errors
SOCKET = "daemon.sock"  # in the pool's run folder: the daemon takes connections of clients there


class ControlMessage(msgspec.Struct, frozen=True, tag_field="kind", tag=True):
    """Base of all messages."""


class Deploy(ControlMessage, frozen=True):
    """Make functions callable. Answered by `Completed`."""

    functions: tuple[FunctionSpec, ...]


class Remove(ControlMessage, frozen=True):
    """Drain functions' instances and forget the functions. Answered by `Completed`."""

    names: tuple[str, ...]


class Stop(ControlMessage, frozen=True):
    """Drain functions' instances. Answered by `Completed`."""

    names: tuple[str, ...]


class Fits(ControlMessage, frozen=True):
    """Ask whether an instance of each function fits into memory at the same time. Answered by `Completed` if so."""

    names: tuple[str, ...]
    seconds: float  # within which the answer must come


class Prewarm(ControlMessage, frozen=True):
    """Start an instance of each function that has none. Answered by `Completed`."""

    names: tuple[str, ...]
    seconds: float  # within which the answer must come


class Stuck(ControlMessage, frozen=True):
    """An instance has not answered a call for `seconds`. Answered by `Completed`."""

    path: str
    seconds: float


class Suspect(ControlMessage, frozen=True):
    """A call takes much longer than the `expected` seconds: the instance must show that it works."""

    path: str
    expected: float


class AskStatus(ControlMessage, frozen=True):
    """Ask for the state of the pool. Answered by `PoolReport`."""


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """A call needs an instance."""

    number: int  # for the answer
    function: str
    lost: str | None = None  # path of the instance that the call was sent to before, and that has ended


class Activate(ControlMessage, frozen=True):
    """Hand out instances within `seconds`. Each is answered by `Activated` or `NotActivated`."""

    wanted: tuple[Wanted, ...]
    seconds: float


class Completed(ControlMessage, frozen=True):
    """The request was carried out."""


class PoolReport(ControlMessage, frozen=True):
    """The state of the pool."""

    pool: PoolStatus


class NotDeployed(ControlMessage, frozen=True):
    """The request names a function that is not deployed."""

    function: str

    def __str__(self) -> str:
        return f"{self.function} is not deployed"


class DeadlinePassed(ControlMessage, frozen=True):
    """The request was not carried out within its seconds."""

    cause: str

    def __str__(self) -> str:
        return self.cause


class BudgetTooSmall(ControlMessage, frozen=True):
    """The memory budget cannot hold one instance of each function."""

    least: int  # bytes that a budget must have
    own: int  # bytes of them for the platform's own processes

    def __str__(self) -> str:
        return f"the memory budget is too small: {self.least} bytes are needed"


class PlatformFailed(ControlMessage, frozen=True):
    """The request cannot be carried out, or was not understood."""

    cause: str

    def __str__(self) -> str:
        return self.cause


Refusal = NotDeployed | DeadlinePassed | BudgetTooSmall | PlatformFailed


class Activated(ControlMessage, frozen=True, kw_only=True):
    """An instance for a call."""

    number: int  # of the `Wanted`
    path: str  # of the instance's socket
    scalable: bool  # the function may have more than one instance
    memory: int  # bytes that the instance counts for
    last_end: str  # why the function's last instance died; empty if none did
    scarce: bool  # instances may have ended because the system has no process or descriptor for them


class NotActivated(ControlMessage, frozen=True):
    """There is no instance for a call."""

    number: int  # of the `Wanted`
    error: Refusal


class RequestRefused(Exception):
    """A request cannot be carried out. `error` is what its client is told."""

    def __init__(self, error: Refusal) -> None:
        super().__init__(str(error))
        self.error = error


Question = Deploy | Remove | Stop | Fits | Prewarm | Stuck | AskStatus
Request = Question | Activate | Suspect
Reply = Completed | PoolReport | Refusal
Activation = Activated | NotActivated


class NotUnderstood(Lost):
    """The other side sent JSON that is no message of the kind that was expected."""


def pack(message: ControlMessage) -> bytes:
    """The message as it travels."""
    return wire.framed(json.dumps(plain(message)).encode())


def plain(value: Any) -> Any:
    """Messages, and the dataclasses that they carry, as what JSON knows."""
    return msgspec.to_builtins(value, enc_hook=text_of_path)


def read(raw: object, kind: Any) -> Any:
    """The opposite of `plain`. Raises `NotUnderstood` if `raw` is no `kind`."""
    try:
        return msgspec.convert(raw, kind, dec_hook=path_of_text)
    except (msgspec.ValidationError, RecursionError) as error:
        raise NotUnderstood(f"not understood: {error}") from error


def read_request(text: bytes | bytearray) -> Request:
    """Raises `NotUnderstood`, or `Lost` if `text` is not a JSON object."""
    request: Request = read(_parse(text), Request)
    return request


def read_reply(text: bytes | bytearray) -> Reply:
    """Raises as `read_request` does."""
    reply: Reply = read(_parse(text), Reply)
    return reply


def read_activation(text: bytes | bytearray) -> Activation:
    """Raises as `read_request` does."""
    activation: Activation = read(_parse(text), Activation)
    return activation


def _parse(text: bytes | bytearray) -> dict[str, Any]:
    """Raises `Lost` if it is not a JSON object."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Lost(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise Lost("not a JSON object")
    return message
