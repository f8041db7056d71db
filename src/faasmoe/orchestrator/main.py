"""The work of an orchestrator process. It keeps no files or processes, so it just exits when the gateway hangs up."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable

from faasmoe.errors import FaasmoeError
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.orchestrator.server import Server

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # between looks at the engine


def run(connection: socket.socket, start: Callable[[], Runtime]) -> None:
    """Start the engine and serve the gateway at `connection` until the engine fails or the gateway hangs up."""
    server = Server(connection, os._exit)  # threads may be anywhere; nothing is left to be closed
    server.start()
    try:
        serving = start()
    except Exception as error:  # the gateway tells it, whatever it is
        if not isinstance(error, FaasmoeError):
            log.exception("the orchestrator cannot start")
        server.fail(error)
        threading.Event().wait()  # until the gateway has read it and hangs up
        return
    server.serve(serving.engine, serving.stats)
    while serving.engine.alive:
        server.cancel_dropped(_LOOK_SECONDS)
    log.error("the engine has ended")
