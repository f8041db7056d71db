"""The embedded platform's client: starts the daemon, and calls instances over their own sockets."""

from __future__ import annotations

import builtins
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from faasmoe.errors import DeadlineExceeded, PlatformError, UnknownFunction
from faasmoe.platforms.base import Call, Capabilities, FunctionSpec, FunctionStatus
from faasmoe.platforms.local import wire
from faasmoe.platforms.local.daemon import READY

NAME = "local"
DEFAULT_KEEP_ALIVE = 60.0  # seconds
_SOCKET = "daemon.sock"
_START_SECONDS = 60.0
_CONTROL_SECONDS = 30.0
_MAX_DEATHS = 20  # an instance that dies this often within one call will not live


class LocalPlatform:
    """Functions as processes of this machine. Implements `platforms.base.Platform`.

    `preload` names modules that the daemon imports before it forks. Raises `PlatformError` if the daemon
    does not start.
    """

    capabilities = Capabilities(
        binary_payloads=True,
        scale_to_zero=True,
        prewarm=True,
        largest_payload=wire.MAX_MESSAGE,
        most_functions=None,
    )

    def __init__(self, keep_alive: float = DEFAULT_KEEP_ALIVE, preload: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="faasmoe-", dir=os.environ.get("XDG_RUNTIME_DIR")))
        path = self.folder / _SOCKET
        command = [
            sys.executable,
            "-m",
            "faasmoe.platforms.local.daemon",
            str(path),
            str(keep_alive),
            *preload,
        ]
        self._daemon = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()  # of the control connection: `list` is asked from other threads
        self._sockets: dict[str, _Connection] = {}
        try:
            self._wait_until_ready()
            self._control = _connect(path, _CONTROL_SECONDS)
        except BaseException:
            self.close()
            raise

    def processes(self) -> Sequence[int]:
        """See `Platform.processes`."""
        return [self._daemon.pid, *(pid for function in self.list() for pid in function.instances)]

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """See `Platform.deploy`."""
        functions = [[s.name, s.handler, str(s.artifact), s.keep_alive] for s in specs]
        self._ask("deploy", functions=functions)

    def remove(self, names: Sequence[str]) -> None:
        """See `Platform.remove`."""
        known = {status.name for status in self.list()}
        for name in names:
            if name not in known:
                raise UnknownFunction(NAME, name, "it was never deployed")
        self._ask("remove", names=list(names))
        for name in names:
            self._forget(name)

    def prewarm(self, names: Sequence[str]) -> None:
        """See `Platform.prewarm`."""
        self._activate(names, {})

    def list(self) -> list[FunctionStatus]:
        """See `Platform.list`."""
        return [
            FunctionStatus(f["name"], tuple(f["instances"]), f["invocations"], f["cold_starts"])
            for f in self._ask("list")
        ]

    def invoke_many(self, calls: Sequence[Call], deadline: float) -> builtins.list[bytearray]:
        """See `Platform.invoke_many`."""
        replies: dict[int, bytearray] = {}
        lost: dict[str, str] = {}
        deaths: Counter[str] = Counter()
        while len(replies) < len(calls):
            lost = self._try(calls, replies, lost, deadline)
            deaths.update(lost.keys())
            for name in lost:
                if deaths[name] >= _MAX_DEATHS:
                    raise PlatformError(NAME, name, f"its instance died {deaths[name]} times during one call")
        return [replies[i] for i in range(len(calls))]

    def _try(
        self,
        calls: Sequence[Call],
        replies: dict[int, bytearray],
        lost: dict[str, str],
        deadline: float,
    ) -> dict[str, str]:
        """Send what has no reply yet and collect `replies`. Returns the instances found lost, by function.

        A connection carries one call at a time: a second call of the same function waits for the next try.
        """
        waiting = {calls[i].function: i for i in reversed(range(len(calls))) if i not in replies}
        missing = set(waiting) - set(self._sockets)
        gone: dict[str, str] = {}
        for name, path in self._activate(sorted(missing), lost).items():
            try:
                self._sockets[name] = _Connection(path, self._left(name, deadline))
            except TimeoutError:
                raise self._too_late(name) from None
            except OSError:  # it ended between activation and now
                gone[name] = path
        sent: dict[int, int] = {}  # file descriptor to call
        poll = select.poll()
        for name, i in waiting.items():
            if name in gone:
                continue
            connection = self._sockets[name]
            try:
                connection.socket.settimeout(self._left(name, deadline))
                wire.send(connection.socket, calls[i].payload)
            except wire.Lost:
                gone[name] = self._forget(name)
                continue
            except TimeoutError:
                raise self._too_late(name) from None
            sent[connection.socket.fileno()] = i
            poll.register(connection.socket, select.POLLIN)
        self._collect(calls, sent, poll, replies, gone, deadline)
        return gone

    def _collect(
        self,
        calls: Sequence[Call],
        sent: dict[int, int],
        poll: select.poll,
        replies: dict[int, bytearray],
        gone: dict[str, str],
        deadline: float,
    ) -> None:
        while sent:
            name = calls[next(iter(sent.values()))].function
            ready = poll.poll(self._left(name, deadline) * 1000)
            if not ready:
                raise self._too_late(name)
            for fd, _ in ready:
                poll.unregister(fd)
                i = sent.pop(fd)
                name = calls[i].function
                try:
                    self._sockets[name].socket.settimeout(self._left(name, deadline))
                    replies[i] = wire.receive(self._sockets[name].socket)
                except wire.Lost:
                    gone[name] = self._forget(name)
                except TimeoutError:
                    raise self._too_late(name) from None

    def _left(self, name: str, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._too_late(name)
        return left

    def _too_late(self, name: str) -> DeadlineExceeded:
        for other in list(self._sockets):  # replies still on their way belong to no later call
            self._forget(other)
        return DeadlineExceeded(NAME, name, "no answer within the deadline")

    def _forget(self, name: str) -> str:
        connection = self._sockets.pop(name, None)
        if connection is None:
            return ""
        connection.socket.close()
        return connection.path

    def _activate(self, names: Sequence[str], lost: dict[str, str]) -> dict[str, str]:
        if not names:
            return {}
        paths = self._ask("activate", names=list(names), lost=lost)
        for name, path in paths.items():
            if path is None:
                raise UnknownFunction(NAME, name, "it was never deployed")
        return dict(paths)

    def _ask(self, operation: str, **arguments: Any) -> Any:
        with self._lock:
            try:
                wire.send_json(self._control, {"operation": operation, **arguments})
                answer = wire.receive_json(self._control)
            except (wire.Lost, OSError) as error:
                self._reconnect()
                raise PlatformError(NAME, "(all)", f"the daemon does not answer: {error}") from error
        if "error" in answer:
            raise PlatformError(NAME, "(all)", f"the daemon refused to {operation}: {answer['error']}")
        return answer["ok"]

    def _reconnect(self) -> None:
        """A late answer must not be taken for that of the next question."""
        self._control.close()
        with suppress(OSError):  # there is no daemon any more: the next question says so
            self._control = _connect(self.folder / _SOCKET, _CONTROL_SECONDS)

    def _wait_until_ready(self) -> None:
        stdout = self._daemon.stdout
        if stdout is None:
            raise PlatformError(NAME, "(all)", "the daemon has no output to listen to")
        ready, _, _ = select.select([stdout], [], [], _START_SECONDS)
        if not ready or stdout.readline().strip() != READY.encode():
            raise PlatformError(NAME, "(all)", "the daemon did not start; its messages are above")

    def close(self) -> None:
        """Stop the daemon and all instances. May be called twice."""
        for name in list(self._sockets):
            self._forget(name)
        if hasattr(self, "_control"):
            self._control.close()
        for pipe in (self._daemon.stdin, self._daemon.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._daemon.wait(timeout=_CONTROL_SECONDS)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Connection:
    """To one instance."""

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.socket = _connect(Path(path), timeout)


def _connect(path: Path, timeout: float) -> socket.socket:
    """Raises `OSError` if nobody listens, `TimeoutError` after `timeout` seconds."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection
