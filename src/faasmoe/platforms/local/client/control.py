"""Connections of a client to the daemon."""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from faasmoe.errors import DeadlineExceeded, OptionError, PlatformError, UnknownFunction
from faasmoe.platforms.local.protocol import messages, wire
from faasmoe.platforms.local.protocol.messages import (
    NAME,
    SOCKET,
    Activate,
    Activation,
    BudgetTooSmall,
    Completed,
    DeadlinePassed,
    NotDeployed,
    PlatformFailed,
    Question,
    Refusal,
    Remove,
    Reply,
    Request,
    Stuck,
    Suspect,
    Wanted,
)

ASK_SECONDS = 60.0
_GRACE_SECONDS = 1.0  # the daemon gives up a little earlier than we do: it knows why
_STALL_SECONDS = 5.0  # for a message that has begun, and for one that fits into the socket's buffer
AGAIN_SECONDS = 0.02  # between attempts to reach a daemon that may be starting again

_R = TypeVar("_R", bound=messages.ControlMessage)


def connect(path: Path | str, timeout: float | None) -> socket.socket:
    """Raises `OSError` if nobody listens, `TimeoutError` after `timeout` seconds."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def wake(folder: Path) -> None:
    """Have the daemon and the zygote of the pool in `folder` started, if it hibernates. Does not wait.

    If that fails, the first call of a function has them started.
    """
    with suppress(OSError), connect(folder / SOCKET, 0):
        pass


def no_descriptors(error: Exception) -> bool:
    """Whether this process or the system has no more descriptors."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def error_of(error: Refusal, function: str, attempts: int = 1, more: str = "") -> Exception:
    """Return the error of a daemon's refusal. `more` is appended to the cause."""
    match error:
        case NotDeployed():
            return UnknownFunction(NAME, error.function or function, "it is not deployed")
        case BudgetTooSmall():
            least, own = error.least / (1 << 20), error.own / (1 << 20)
            return OptionError(
                f"the memory budget is too small: a single token needs {least:.0f} MiB, {own:.0f} MiB of them for the "
                f"platform's own processes"
            )
        case DeadlinePassed() | PlatformFailed():
            tried = "" if attempts == 1 else f" (attempt {attempts})"
            if isinstance(error, DeadlinePassed):
                cause = f"no instance within the deadline: {error.cause}{more}{tried}"
                return DeadlineExceeded(NAME, function, cause)
            return PlatformError(NAME, function, f"{error.cause}{tried}")


class Control:
    """Asks the daemon and waits for its answer, also while it is restarted. For all threads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SOCKET
        self._idle: deque[socket.socket] = deque()  # connections, as many as were ever needed at once
        self._closed = threading.Event()

    def ask(self, request: Question, wanted: type[_R], seconds: float = ASK_SECONDS) -> _R:
        """Return the reply, of the kind `wanted`.

        Raises `PlatformError` if there is none within `seconds`, and what `error_of` makes of a refusal.
        """
        reply = self._exchange(request, time.monotonic() + seconds + _GRACE_SECONDS)
        if isinstance(reply, wanted):
            return reply
        if isinstance(reply, NotDeployed | DeadlinePassed | BudgetTooSmall | PlatformFailed):
            raise error_of(reply, "(all)")
        raise PlatformError(NAME, "(all)", f"the daemon has answered {type(reply).__name__} to {_name(request)}")

    def _exchange(self, request: Question, deadline: float) -> Reply:
        attempts = 0
        while (left := deadline - time.monotonic()) > 0:
            if self._closed.is_set():
                raise PlatformError(NAME, "(all)", "it was closed")
            connection = None
            try:
                connection = self._connection(left)
                connection.settimeout(left)
                attempts += 1
                connection.sendall(messages.pack(request))
                reply = messages.read_reply(wire.receive(connection))
            except (wire.Lost, OSError):
                if connection is not None:
                    connection.close()  # a late answer must not be taken for that of the next question
                select.select([], [], [], AGAIN_SECONDS)
            else:
                self._idle.append(connection)
                if self._closed.is_set():  # by another thread, which did not see this connection
                    self.close()
                if attempts > 1 and isinstance(request, Remove) and isinstance(reply, NotDeployed):
                    return Completed()  # done by a daemon that died before it could say so
                return reply
        raise PlatformError(NAME, "(all)", f"the daemon has not answered to {_name(request)} in time")

    def _connection(self, seconds: float) -> socket.socket:
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self._path, seconds)

    def close(self) -> None:
        """Let calls of `ask` fail. May be called twice."""
        self._closed.set()
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


class Activator:
    """Asks for instances without waiting for them; for one thread."""

    def __init__(self, folder: Path) -> None:
        self.exhausted = False  # the last message was not sent for want of descriptors
        self._path = folder / SOCKET
        self._socket: socket.socket | None = None

    def fileno(self) -> int:
        """Readable when an answer is there. -1 while there is no connection."""
        return -1 if self._socket is None else self._socket.fileno()

    def request(self, wanted: Sequence[Wanted], seconds: float) -> bool:
        """Ask for instances.

        False: there is no daemon now, and what was asked for before must be asked for again.
        """
        return self._send(Activate(tuple(wanted), seconds), seconds)

    def answer(self) -> Activation | None:
        """The next answer; None if the connection was lost: everything must be asked for again.

        To be called when the connection is readable.
        """
        try:
            if self._socket is None:
                return None
            return messages.read_activation(wire.receive(self._socket))
        except (wire.Lost, TimeoutError):
            self.close()
            return None

    def report_suspect(self, path: str, seconds: float) -> bool:
        """An instance has not answered a call for long that should take `seconds`. False: as for `request`."""
        return self._send(Suspect(path, seconds), _GRACE_SECONDS)

    def report_stuck(self, path: str, seconds: float) -> None:
        """An instance did not answer a call for `seconds`."""
        self._send(Stuck(path, seconds), _GRACE_SECONDS)

    def _send(self, request: Request, seconds: float) -> bool:
        self.exhausted = False
        try:
            if self._socket is None:
                self._socket = connect(self._path, seconds)
                self._socket.settimeout(_STALL_SECONDS)
            self._socket.sendall(messages.pack(request))
        except (wire.Lost, OSError) as error:
            self.exhausted = no_descriptors(error)
            self.close()
            return False
        return True

    def close(self) -> None:
        """May be called twice."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None


def _name(request: Question) -> str:
    """The name of a request in errors."""
    return repr(type(request).__name__.lower())
