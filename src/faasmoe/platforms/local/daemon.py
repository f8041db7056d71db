"""The zygote: has imported torch once, and forks an instance whenever a function without one is activated.

It is one thread over one selector. It starts, stops and counts; calls go from orchestrators to instances
directly. It ends, and with it every instance, when its standard input closes.

    python -m faasmoe.platforms.local.daemon SOCKET KEEP_ALIVE MODULE...
"""

from __future__ import annotations

import gc
import importlib
import os
import selectors
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faasmoe.platforms.local import instance, wire
from faasmoe.platforms.local.counters import SharedCounters

READY = "ready"
_BACKLOG = 64  # callers that may wait for an instance to load


@dataclass
class Instance:
    """A forked process and how it is reached."""

    pid: int
    pidfd: int
    path: Path
    counters: SharedCounters


@dataclass
class Function:
    """A deployed function, and what it did so far."""

    handler: str
    artifact: str
    keep_alive: float
    instance: Instance | None = None
    cold_starts: int = 0
    past_invocations: int = 0  # by instances that have ended


class Daemon:
    """Answers control messages and reaps instances."""

    def __init__(self, listener: socket.socket, folder: Path, keep_alive: float) -> None:
        self._listener = listener
        self._folder = folder
        self._keep_alive = keep_alive
        self._functions: dict[str, Function] = {}
        self._forks = 0  # names sockets, so that no path is used twice
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Run until standard input closes."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(sys.stdin, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._stop_all()
                    return
                key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(wire.STALL_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ, self._control)

    def _control(self, connection: socket.socket) -> None:
        try:
            message = wire.receive_json(connection)
            wire.send_json(connection, self._answer(message))
        except (wire.Lost, TimeoutError):
            self._selector.unregister(connection)
            connection.close()

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        operations = {
            "deploy": self._deploy,
            "remove": self._remove,
            "activate": self._activate,
            "list": self._list,
        }
        try:
            return {"ok": operations[message["operation"]](message)}
        except (KeyError, TypeError, ValueError, OSError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _deploy(self, message: dict[str, Any]) -> None:
        for name, handler, artifact, keep_alive in message["functions"]:
            if name in self._functions:
                self._stop(name)
            seconds = self._keep_alive if keep_alive is None else float(keep_alive)
            self._functions[name] = Function(str(handler), str(artifact), seconds)

    def _remove(self, message: dict[str, Any]) -> None:
        for name in message["names"]:
            self._stop(name)
            del self._functions[name]

    def _activate(self, message: dict[str, Any]) -> dict[str, str | None]:
        """Sockets of running instances, started if need be; None for a function that is not deployed.

        `lost` names instances that a caller found dead or silent, so that they are replaced.
        """
        for name, path in message.get("lost", {}).items():
            function = self._functions.get(name)
            if function and function.instance and str(function.instance.path) == path:
                self._stop(name)
        return {name: self._socket_of(name) for name in message["names"]}

    def _socket_of(self, name: str) -> str | None:
        function = self._functions.get(name)
        if function is None:
            return None
        if function.instance is None:
            function.instance = self._fork(function)
        return str(function.instance.path)

    def _fork(self, function: Function) -> Instance:
        self._forks += 1
        path = self._folder / f"{self._forks}.sock"  # short: the kernel takes 107 bytes
        counters, parent = SharedCounters(), os.getpid()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(_BACKLOG)
            pid = os.fork()
            if pid == 0:
                for key in list(self._selector.get_map().values()):  # the daemon's, not an instance's
                    os.close(key.fd)
                instance.child_main(
                    parent, listener, function.handler, function.artifact, function.keep_alive, counters
                )
        function.cold_starts += 1
        made = Instance(pid, os.pidfd_open(pid), path, counters)
        self._selector.register(made.pidfd, selectors.EVENT_READ, lambda _: self._reap(function, made))
        return made

    def _stop(self, name: str) -> None:
        function = self._functions[name]
        if function.instance is not None:
            os.kill(function.instance.pid, signal.SIGKILL)  # it holds nothing that could be lost
            self._reap(function, function.instance)

    def _reap(self, function: Function, ended: Instance) -> None:
        if function.instance is not ended:  # stopped by a message that came with the news of its end
            return
        self._selector.unregister(ended.pidfd)
        os.close(ended.pidfd)
        os.waitpid(ended.pid, 0)
        ended.path.unlink(missing_ok=True)
        function.past_invocations += ended.counters.invocations
        ended.counters.close()
        function.instance = None

    def _stop_all(self) -> None:
        for name in self._functions:
            self._stop(name)

    def _list(self, _: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "instances": [f.instance.pid] if f.instance else [],
                "invocations": f.past_invocations + (f.instance.counters.invocations if f.instance else 0),
                "cold_starts": f.cold_starts,
            }
            for name, f in self._functions.items()
        ]


def main() -> None:
    """Import what functions need, say that the daemon is ready, and serve."""
    path, keep_alive, *modules = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us closes our standard input
    for module in modules:
        importlib.import_module(module)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # parallelism comes from instances
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(_BACKLOG)
    gc.collect()
    gc.freeze()  # collections in instances leave the shared pages alone
    print(READY, flush=True)  # noqa: T201 - read by the client
    folder = Path(path).parent
    try:
        Daemon(listener, folder, float(keep_alive)).serve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # also when who started us was killed


if __name__ == "__main__":
    main()
