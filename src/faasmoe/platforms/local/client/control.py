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
from typing import Any

from faasmoe.errors import DeadlineExceeded, OptionError, PlatformError, UnknownFunction
from faasmoe.platforms.local.options import NAME
from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.run_folder import SOCKET

_ASK_SECONDS = 60.0
_GRACE_SECONDS = 1.0  # the daemon gives up a little earlier than we do: it knows why
_STALL_SECONDS = 5.0  # for a message that has begun, and for one that fits into the socket's buffer
_AGAIN_SECONDS = 0.02  # between attempts to reach a daemon that may be starting again


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
    """Have the daemon of the pool in `folder` started, if it rests, and what forks instances with it. Does not wait.

    Where that cannot be done now, whoever calls a function does it.
    """
    with suppress(OSError), connect(folder / SOCKET, 0):
        pass


def no_descriptors(error: Exception) -> bool:
    """Whether this process or the system has no more of them."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def error_of(answer: dict[str, Any], function: str, attempts: int = 1) -> Exception:
    """What a daemon's refusal becomes."""
    kind, cause = answer["error"], answer["cause"]
    tried = "" if attempts == 1 else f" (attempt {attempts})"
    if kind == "unknown":
        return UnknownFunction(NAME, cause or function, "it is not deployed")
    if kind == "deadline":
        return DeadlineExceeded(NAME, function, f"no instance within the deadline: {cause}{tried}")
    return PlatformError(NAME, function, f"{cause}{tried}")


class Control:
    """Asks the daemon and waits for its answer; for all threads. One that is being restarted is waited for."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SOCKET
        self._idle: deque[socket.socket] = deque()  # as many as were ever needed at once
        self._closed = threading.Event()

    def ask(self, operation: str, seconds: float = _ASK_SECONDS, **arguments: Any) -> Any:
        """Raises `PlatformError` if there is no answer within `seconds`, `UnknownFunction`, or `OptionError`."""
        message = {"operation": operation, "seconds": seconds, **arguments}
        answer, attempts = self._exchange(message, time.monotonic() + seconds + _GRACE_SECONDS)
        if "error" not in answer:
            return answer["ok"]
        if operation == "remove" and answer["error"] == "unknown" and attempts > 1:
            return None  # done by a daemon that died before it could say so
        if answer["error"] == "option":
            least, own = (int(number) / (1 << 20) for number in answer["cause"].split())
            raise OptionError(
                f"the memory budget is too small: a single token needs {least:.0f} MiB, {own:.0f} MiB of them for the "
                f"platform's own processes"
            )
        raise error_of(answer, "(all)")

    def _exchange(self, message: dict[str, Any], deadline: float) -> tuple[dict[str, Any], int]:
        """The answer, and how often it was asked for."""
        attempts = 0
        while (left := deadline - time.monotonic()) > 0:
            if self._closed.is_set():
                raise PlatformError(NAME, "(all)", "it was closed")
            connection = None
            try:
                connection = self._connection(left)
                connection.settimeout(left)
                attempts += 1
                wire.send(connection, message)
                answer = wire.receive(connection)[0]
            except (wire.Lost, OSError):
                if connection is not None:
                    connection.close()  # a late answer must not be taken for that of the next question
                select.select([], [], [], _AGAIN_SECONDS)
            else:
                self._idle.append(connection)
                if self._closed.is_set():  # by another thread, which did not see this connection
                    self.close()
                return answer, attempts
        raise PlatformError(NAME, "(all)", f"the daemon has not answered to {message['operation']!r} in time")

    def _connection(self, seconds: float) -> socket.socket:
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self._path, seconds)

    def close(self) -> None:
        """Who still asks is told. May be called twice."""
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

    def request(self, wanted: Sequence[tuple[int, str, str | None]], seconds: float) -> bool:
        """Ask for instances: (number for the answer, function, path of one that was lost).

        False: there is no daemon now, and what was asked for before must be asked for again.
        """
        return self._send({"operation": "activate", "wanted": list(wanted), "seconds": seconds}, seconds)

    def answer(self) -> dict[str, Any] | None:
        """The next answer; None if the connection was lost: everything must be asked for again.

        To be called when the connection is readable.
        """
        try:
            if self._socket is None:
                return None
            return wire.receive(self._socket)[0]
        except (wire.Lost, TimeoutError):
            self.close()
            return None

    def report_suspect(self, path: str, seconds: float) -> bool:
        """An instance has not answered a call for long, which should have taken `seconds`. False: as for `request`."""
        return self._send({"operation": "suspect", "path": path, "expected": seconds}, _GRACE_SECONDS)

    def report_stuck(self, path: str, seconds: float) -> None:
        """An instance did not answer a call for `seconds`."""
        self._send({"operation": "stuck", "path": path, "seconds": seconds}, _GRACE_SECONDS)

    def _send(self, message: dict[str, Any], seconds: float) -> bool:
        self.exhausted = False
        try:
            if self._socket is None:
                self._socket = connect(self._path, seconds)
                self._socket.settimeout(_STALL_SECONDS)
            wire.send(self._socket, message)
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
