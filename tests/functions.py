"""Functions for platform tests, in the form that platforms load: `load(artifact) -> handle`."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

Buffer = bytes | bytearray | memoryview
Handle = Callable[[memoryview, memoryview | None, int, Callable[[int], Buffer]], Buffer]


def echo(artifact: str) -> Handle:
    """Answers with the artifact's content and the request."""
    content = Path(artifact).read_bytes()
    return lambda payload, *_: content + bytes(payload)


def shared(_: str) -> Handle:
    """Answers with the bytes of the shared buffer between two offsets, in place."""

    def handle(payload: memoryview, shared: memoryview | None, _: int, reserve: Callable[[int], Buffer]) -> Buffer:
        start, end = map(int, bytes(payload).split())
        reply = reserve(end - start)
        memoryview(reply)[:] = (shared or b"")[start:end]
        return reply

    return handle


def pid(_: str) -> Handle:
    """Answers with its process id."""
    return lambda *_: str(os.getpid()).encode()


def birth(_: str) -> Handle:
    """Answers with what is different each time that it is loaded."""
    mark = os.urandom(8)
    return lambda *_: mark


def named(artifact: str) -> Path:
    """The file that an artifact names. Platforms may run a function with a copy of its artifact."""
    return Path(Path(artifact).read_text())


def echo_named(artifact: str) -> Handle:
    """Answers as `echo` does, with the content of the file that the artifact names."""
    return echo(str(named(artifact)))


def mortal(artifact: str) -> Handle:
    """Dies in each call while the file exists that the artifact names."""
    file = named(artifact)

    def handle(*_: object) -> bytes:
        if file.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return b"alive"

    return handle


def stuck(_: str) -> Handle:
    """Never answers."""

    def handle(*_: object) -> bytes:
        threading.Event().wait()
        return b""

    return handle


def patient(artifact: str) -> Handle:
    """Answers when the named pipe that the artifact names is written to."""
    file = named(artifact)

    def handle(payload: memoryview, *_: object) -> bytes:
        with file.open("rb", buffering=0) as pipe:
            return bytes(payload) + pipe.read(1)

    return handle


def unloadable(_: str) -> Handle:
    """Cannot be loaded."""
    raise OSError("no weights here")


def hungry(_: str) -> Handle:
    """Takes as many bytes of memory as the request says."""
    return lambda payload, *_: str(len(bytearray(int(bytes(payload))))).encode()


def prisoner(_: str) -> Handle:
    """Tries to get out: opens the socket or the file that the request names."""

    def handle(payload: memoryview, *_: object) -> bytes:
        what = bytes(payload).decode()
        if what == "socket":
            socket.socket(socket.AF_INET)
        else:
            Path(what).write_text("out")
        return b"free"

    return handle
