"""The template: the fork server that has loaded the model, so that orchestrators import and load nothing.

It obeys the gateway over a socket that it inherits. When the socket closes, it ends, and so do all processes that it
forked.

python -m faasmoe.orchestrator.template DESCRIPTOR PARENT
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from faasmoe.errors import FaasmoeError
from faasmoe.protocol.config import About
from faasmoe.protocol.dense_part import DENSE
from faasmoe.protocol.errors import failure_of
from faasmoe.protocol.messages import Start, encode, read_start
from faasmoe.util.forkserver.connection import Connection
from faasmoe.util.forkserver.messages import Loaded, LoadFailed
from faasmoe.util.forkserver.server import ForkServer, run
from faasmoe.util.forkserver.worker import Assignment
from faasmoe.util.gc_freeze import importing, keep_imported

if TYPE_CHECKING:
    from faasmoe.model.checkpoint.files import CheckpointFiles
    from faasmoe.orchestrator.loaded_model import LoadedModel

log = logging.getLogger("faasmoe.orchestrator.template")  # it is run as __main__

TOKENIZER = "tokenizer"  # folder in which the gateway finds it
ROLE = "orchestrator"
_ARTIFACTS = "artifacts"
_EXPORTS = "exports.json"  # for the next template

Orchestrator = Callable[[socket.socket], None]  # serves over a connection until there is nothing to serve any more


def prepare(start: Start) -> tuple[About, Orchestrator]:
    """Load the model of `start`, deploy its functions on the gateway's pool, and save its tokenizer for the gateway.

    Raises `UserError` if it cannot be served with these options, `CheckpointChanged` if the gateway's first template
    has loaded something else.
    """
    (loaded, files), folder = _load(start), Path(start.folder)
    from faasmoe.model.config import generation  # noqa: PLC0415 - torch is there now
    from faasmoe.model.plan import context_length  # noqa: PLC0415
    from faasmoe.orchestrator import main as process  # noqa: PLC0415
    from faasmoe.orchestrator.dense_part import write_dense_part  # noqa: PLC0415
    from faasmoe.orchestrator.runtime import Runtime, install  # noqa: PLC0415
    from faasmoe.orchestrator.served_context import KVShare  # noqa: PLC0415
    from faasmoe.platforms.registry import find  # noqa: PLC0415
    from faasmoe.util.folders.run_folder import writing  # noqa: PLC0415

    config, plan = start.config, loaded.plan
    with writing(folder):
        loaded.tokenizer.save(folder / TOKENIZER)
        share = KVShare.of(config.engine, start.orchestrators, folder)
        if not start.deployed:
            write_dense_part(plan, files, folder / DENSE)
    length = share.context(context_length(plan, None), config.max_model_len, loaded.model.state_spec)
    options = replace(config.engine, kv_cache_bytes=share.each)

    platform = partial(find(start.platform).require_connect("an orchestrator"), start.pool)

    if not start.deployed:
        with platform() as pool:
            install(loaded, pool)
    architecture = plan.architecture
    vocabulary = int(architecture.text_config.vocab_size)
    defaults = generation.sampling_defaults(Path(start.config.folder)) if start.config.generation_config else {}
    about = About(
        architecture.name,
        len(architecture.experts),
        len(plan.blocks),
        vocabulary,
        length,
        share.each,
        sampling=defaults,
    )
    return about, lambda connection: process.run(connection, lambda: Runtime(loaded, platform, length, options))


def _load(start: Start) -> tuple[LoadedModel, CheckpointFiles]:
    """Load the model from one state of the checkpoint's folder, which is also returned. Logs its progress."""
    from faasmoe.model.adapter.light_import import import_transformers  # noqa: PLC0415
    from faasmoe.model.checkpoint.files import CheckpointFiles  # noqa: PLC0415
    from faasmoe.model.checkpoint.folder import config_file  # noqa: PLC0415
    from faasmoe.model.checkpoint.source import ModelSource  # noqa: PLC0415

    began = time.monotonic()

    def done(what: str) -> None:
        log.info(what, extra={"seconds": round(time.monotonic() - began, 1)})

    config, folder = start.config, Path(start.folder)
    source = ModelSource(config.name, Path(config.folder))
    config_file(source.folder)  # before anything heavy is imported
    files = CheckpointFiles.of(source.folder)
    files.pin(folder)
    import_transformers(folder / _EXPORTS)
    from faasmoe.model.plan import context_length, make_plan  # noqa: PLC0415
    from faasmoe.orchestrator.loaded_model import LoadedModel  # noqa: PLC0415
    from faasmoe.orchestrator.runtime import demand  # noqa: PLC0415
    from faasmoe.platforms.registry import find  # noqa: PLC0415

    keep_imported()
    done("torch and transformers are imported")
    plan = make_plan(source, config.block_size, config.dtype, config.quantize, config.rope_scaling)
    requests = config.engine.max_sequences + config.engine.max_waiting
    find(start.platform).check_demand(demand(plan, start.orchestrators, requests))
    context_length(plan, config.max_model_len)  # refuses what is more than the model's
    done("the checkpoint is checked")
    loaded = LoadedModel(plan, None if start.deployed else folder / _ARTIFACTS)
    files.check()
    done("the dense part is loaded")
    return loaded, files


def main() -> None:
    """Load, then serve until the gateway hangs up."""
    run("template", _serve)


def _serve(gateway: Connection) -> None:
    start = read_start(gateway.load())
    try:
        with importing():
            about, orchestrator = prepare(start)
    except Exception as error:  # the gateway tells it, whatever it is
        if not isinstance(error, FaasmoeError):
            log.exception("the model cannot be loaded")
        gateway.send(LoadFailed(encode(failure_of(error))))
        return
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        log.warning("%d threads where one is expected (Python knows %d): forks may hang", threads,
                    threading.active_count())  # fmt: skip

    def work(wait: Callable[[], Assignment]) -> int:
        (connection,) = wait().descriptors
        orchestrator(socket.socket(fileno=connection))
        return 1  # it exits by itself where all is well

    server = ForkServer(gateway, ROLE, work)
    gateway.send(Loaded(encode(about)))
    server.serve()


if __name__ == "__main__":
    main()
