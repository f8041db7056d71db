"""Functions for platform tests, in the form that platforms load: `load(artifact) -> handle`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

Handle = Callable[[bytearray, int], list[bytes]]


def echo(artifact: str) -> Handle:
    """Answers with the artifact's content and the request."""
    content = Path(artifact).read_bytes()
    return lambda data, _: [content, bytes(data)]


def pid(_: str) -> Handle:
    """Answers with its process id."""
    return lambda _data, _queue: [str(os.getpid()).encode()]


def suicide(artifact: str) -> Handle:
    """Dies in its first calls; the artifact holds how often it still shall."""

    def handle(data: bytearray, _: int) -> list[bytes]:
        left = int(Path(artifact).read_text())
        if left:
            Path(artifact).write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return [b"alive"]

    return handle


def stuck(_: str) -> Handle:
    """Never answers."""

    def handle(data: bytearray, _: int) -> list[bytes]:
        threading.Event().wait()
        return []

    return handle


def unloadable(_: str) -> Handle:
    """Cannot be loaded."""
    raise OSError("no weights here")
