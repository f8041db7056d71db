"""The orchestrator as a process of its own. It holds nothing that outlives it: it ends when the gateway hangs up.

python -m faasmoe.orchestrator.process DESCRIPTOR PARENT
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from faasmoe import logs
from faasmoe.errors import FaasmoeError, MessageError
from faasmoe.orchestrator.messages import Ready, Start
from faasmoe.orchestrator.server import Server
from faasmoe.platforms.local.instance import die_with_parent

if TYPE_CHECKING:
    from faasmoe.orchestrator.serving import Serving

log = logging.getLogger(__name__)

TOKENIZER = "tokenizer"  # folder in which the gateway finds it
_ARTIFACTS = "artifacts"
_LOOK_SECONDS = 1.0  # between looks at the engine


def main() -> None:
    """Serve until the gateway hangs up."""
    descriptor, parent = map(int, sys.argv[1:])
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group; the gateway says when to end
    logs.inherit("orchestrator")
    server = Server(
        socket.socket(fileno=descriptor), os._exit
    )  # threads may be anywhere; nothing is left to be closed
    try:
        start = server.listen()
    except MessageError as error:
        log.error("the gateway sent %s", error)
        sys.exit(1)
    except OSError:
        return
    try:
        serving = load(start)
    except Exception as error:  # the gateway tells it, whatever it is
        if not isinstance(error, FaasmoeError):
            log.exception("the orchestrator cannot start")
        server.fail(error)
        threading.Event().wait()  # until the gateway has read it and hangs up
        return
    server.serve(serving.engine, _ready(serving), serving.figures)
    while serving.engine.alive:
        server.cancel_dropped(_LOOK_SECONDS)
    log.error("the engine has ended")
    os._exit(1)


def load(start: Start) -> Serving:
    """The model of `start`, with its functions on the gateway's pool, and its tokenizer saved for the gateway."""
    from faasmoe.model.plan import context_length, make_plan  # noqa: PLC0415 - signs of life come before torch
    from faasmoe.model.source import ModelSource  # noqa: PLC0415
    from faasmoe.orchestrator.serving import Serving  # noqa: PLC0415
    from faasmoe.platforms.local.platform import LocalPlatform  # noqa: PLC0415

    config, folder = start.config, Path(start.folder)
    source = ModelSource(config.name, Path(config.folder))
    plan = make_plan(source, config.block_size, config.dtype, config.quantize)
    length = context_length(plan, config.max_model_len)
    serving = Serving(
        plan, lambda: LocalPlatform(folder=Path(start.pool)), length, config.engine, folder / _ARTIFACTS
    )
    serving.tokenizer.save(folder / TOKENIZER)
    return serving


def _ready(serving: Serving) -> Ready:
    architecture = serving.plan.architecture
    return Ready(
        architecture.name,
        len(architecture.experts),
        len(serving.plan.blocks),
        int(architecture.text_config.vocab_size),
        serving.engine.max_model_len,
    )


if __name__ == "__main__":
    main()
