"""The process of a fork server, and its client's end of the socket between the two.

Imports little, so that a process can start a fork server before it imports what it needs itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from faasmoe.util import processes

_STDERR = 2


class ServerProcess(NamedTuple):
    """A fork server that was started."""

    process: subprocess.Popen[bytes]
    connection: socket.socket  # SOCK_SEQPACKET


def spawn(module: str, environment: Mapping[str, str]) -> ServerProcess:
    """Start a fork server whose `main` is in `module`. Raises `OSError`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            process = processes.start(
                module,
                [str(theirs.fileno()), str(os.getpid())],
                stdout=_STDERR,  # what a library prints must not get among our own output
                descriptors=[theirs.fileno()],
                more=environment,
            )
        except BaseException:
            ours.close()
            raise
    return ServerProcess(process, ours)
