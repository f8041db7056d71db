"""One running copy of a function: a forked process that answers calls on a unix socket until it idles out."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

from faasmoe.platforms.local import wire
from faasmoe.platforms.local.counters import SharedCounters

Handle = Callable[[bytearray, int], Sequence[wire.Buffer]]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, whatever kills that."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def resolve(handler: str) -> Callable[[str], Handle]:
    """The loader that `module:attribute` names."""
    module, _, attribute = handler.partition(":")
    loader: Callable[[str], Handle] = getattr(importlib.import_module(module), attribute)
    return loader


def run(listener: socket.socket, handler: str, artifact: str, keep_alive: float, counters: SharedCounters) -> None:
    """Load the function and serve until nothing was asked for `keep_alive` seconds.

    The listener has been bound before, so that callers can connect and wait while the function loads.
    """
    gc.disable()  # a function keeps no state, so it makes no cycles worth looking for
    handle = resolve(handler)(artifact)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    connections: dict[int, socket.socket] = {}
    while ready := poll.poll(keep_alive * 1000):
        seen = time.perf_counter_ns()
        for fd, _ in ready:
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.settimeout(wire.STALL_SECONDS)
                connections[connection.fileno()] = connection
                poll.register(connection, select.POLLIN)
                continue
            try:
                request = wire.receive(connections[fd])
                reply = handle(request, time.perf_counter_ns() - seen)
                counters.count_invocation()
                wire.send(connections[fd], reply)
            except (wire.Lost, TimeoutError):  # an orchestrator went away; others may still be there
                poll.unregister(fd)
                connections.pop(fd).close()


def child_main(
    parent: int,
    listener: socket.socket,
    handler: str,
    artifact: str,
    keep_alive: float,
    counters: SharedCounters,
) -> None:
    """What the daemon's child does after the fork. Does not return."""
    status = 1
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server to handle
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        run(listener, handler, artifact, keep_alive, counters)
        status = 0
    except Exception as error:  # noqa: BLE001 - the last frame of this process
        print(f"instance {os.getpid()} of {artifact}: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
    finally:
        sys.stderr.flush()
        os._exit(status)  # no destructors of the daemon's objects
