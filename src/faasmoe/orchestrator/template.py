"""The process that has loaded the model, and forks orchestrators: none of them imports or loads anything.

It obeys the gateway over a socket that it inherits, and ends when that closes, and with it all that it has forked.

python -m faasmoe.orchestrator.template DESCRIPTOR PARENT
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from faasmoe.errors import FaasmoeError, MessageError
from faasmoe.protocol.config import About
from faasmoe.protocol.messages import (
    LARGEST_PACKET,
    Ended,
    Failed,
    Fork,
    Forked,
    FromTemplate,
    Kill,
    Killed,
    Prepared,
    Start,
    ToTemplate,
    failure_of,
    pack,
    read_template_order,
)
from faasmoe.util import logs
from faasmoe.util.gc_freeze import importing, keep_imported
from faasmoe.util.processes import Children, die_with_parent, leave_signals_to_parent

if TYPE_CHECKING:
    from faasmoe.orchestrator.loaded_model import LoadedModel

log = logging.getLogger("faasmoe.orchestrator.template")  # it is run as __main__

TOKENIZER = "tokenizer"  # folder in which the gateway finds it
ROLE = "orchestrator"
_ARTIFACTS = "artifacts"
_EXPORTS = "exports.json"  # for the next template
_PR_SET_NAME = 15  # linux/prctl.h

Orchestrator = Callable[[socket.socket], None]  # serves over a connection until there is nothing to serve any more


class GatewayLeft(Exception):
    """Nobody gives orders any more."""


class Template:
    """Forks `orchestrator` for each descriptor that it is given, reaps, and tells of ends."""

    def __init__(self, gateway: socket.socket, orchestrator: Orchestrator) -> None:
        self._gateway = gateway
        self._orchestrator = orchestrator
        self._numbers: dict[int, int] = {}  # process id to number
        self._children = Children()

    def serve(self) -> None:
        """Run until `GatewayLeft`, or `MessageError` if the gateway sends what is no order."""
        poll = select.poll()
        poll.register(self._gateway, select.POLLIN)
        poll.register(self._children, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._children.fileno():
                    self._reap()
                else:
                    self._obey(*receive(self._gateway))

    def _obey(self, order: ToTemplate, fds: list[int]) -> None:
        try:
            if isinstance(order, Fork):
                self._fork(order.number, fds[0] if fds else None)
            elif isinstance(order, Kill):
                for pid in [pid for pid, number in self._numbers.items() if number == order.number]:
                    os.kill(pid, signal.SIGKILL)  # not reaped yet, so that its id is nobody else's
                send(self._gateway, Killed(order.number))
            else:
                raise MessageError(f"{type(order).__name__} is no order")
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, number: int, connection: int | None) -> None:
        """`connection` is None if the kernel could not hand it over: no descriptor was free."""
        parent = os.getpid()
        try:
            if connection is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid = os.fork()
        except OSError as error:
            log.error("no orchestrator can be forked: %s", error.strerror)
            send(self._gateway, Ended(number, 1))
            return
        if pid == 0:
            self._become(parent, connection)
        self._numbers[pid] = number
        send(self._gateway, Forked(number, pid))

    def _become(self, parent: int, connection: int) -> None:
        """What the child does. Does not return."""
        try:
            die_with_parent(parent)
            self._children.leave()
            os.close(self._gateway.detach())
            ctypes.CDLL(None).prctl(_PR_SET_NAME, ROLE.encode())
            logs.inherit(ROLE)
            self._orchestrator(socket.socket(fileno=connection))
        except Exception:  # the last frame of this process
            log.exception("the orchestrator has failed")
        finally:
            os._exit(1)  # no destructors of the template's objects

    def _reap(self) -> None:
        for pid, code in self._children.ended():
            if (number := self._numbers.pop(pid, None)) is not None:
                send(self._gateway, Ended(number, code))


def receive(gateway: socket.socket) -> tuple[ToTemplate, list[int]]:
    """An order and the descriptors that came with it. Raises `GatewayLeft` or `MessageError`."""
    try:
        packet, fds, _, _ = socket.recv_fds(gateway, LARGEST_PACKET, 1)
    except OSError as error:
        raise GatewayLeft from error
    if not packet:
        raise GatewayLeft
    return read_template_order(packet), fds


def send(gateway: socket.socket, answer: FromTemplate) -> None:
    """Raises `GatewayLeft`."""
    try:
        gateway.send(pack(answer))
    except OSError as error:
        raise GatewayLeft from error


def prepare(start: Start) -> tuple[About, Orchestrator]:
    """Load the model of `start`, deploy its functions on the gateway's pool, and save its tokenizer for the gateway.

    Raises `UserError` if it cannot be served with these options, `CheckpointChanged` if the gateway's first template
    has loaded something else.
    """
    loaded, folder = _load(start), Path(start.folder)
    from faasmoe.model.plan import context_length  # noqa: PLC0415 - torch is there now
    from faasmoe.orchestrator.main import run  # noqa: PLC0415
    from faasmoe.orchestrator.runtime import Runtime, install  # noqa: PLC0415
    from faasmoe.orchestrator.served_context import KVShare  # noqa: PLC0415
    from faasmoe.platforms.local.run_folder import writing  # noqa: PLC0415
    from faasmoe.platforms.registry import find  # noqa: PLC0415

    config, plan = start.config, loaded.plan
    with writing(folder):
        loaded.tokenizer.save(folder / TOKENIZER)
        share = KVShare.of(config.engine, start.orchestrators, folder)
    length = share.context(
        context_length(plan, None), config.max_model_len, loaded.model.state_spec.bytes_per_token
    )
    options = replace(config.engine, kv_cache_bytes=share.each)

    platform = partial(find(start.platform).require_connect("an orchestrator"), start.pool)

    with platform() as pool:
        install(loaded, pool)
    architecture = plan.architecture
    vocabulary = int(architecture.text_config.vocab_size)
    about = About(architecture.name, len(architecture.experts), len(plan.blocks), vocabulary, length)
    return about, lambda connection: run(connection, lambda: Runtime(loaded, platform, length, options))


def _load(start: Start) -> LoadedModel:
    """All of it is read from one state of the checkpoint's folder. Says in the log how far it is."""
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
    from faasmoe.platforms.local.supervisor.limits import tell  # noqa: PLC0415

    keep_imported()
    done("torch and transformers are imported")
    plan = make_plan(source, config.block_size, config.dtype, config.quantize)
    tell(demand(plan, start.orchestrators, config.engine.max_sequences + config.engine.max_waiting))
    context_length(plan, config.max_model_len)  # refuses what is more than the model's
    done("the checkpoint is checked")
    loaded = LoadedModel(plan, folder / _ARTIFACTS)
    files.check()
    done("the dense part is loaded")
    return loaded


def main() -> None:
    """Load, then serve until the gateway hangs up."""
    descriptor, parent = map(int, sys.argv[1:])
    die_with_parent(parent)
    leave_signals_to_parent()
    logs.inherit("template")
    gateway = socket.socket(fileno=descriptor)
    with suppress(GatewayLeft):
        try:
            start, _ = receive(gateway)
            if not isinstance(start, Start):
                raise MessageError(f"{type(start).__name__}, which is not Start, first")
            _serve(gateway, start)
        except MessageError as error:
            log.error("the gateway sent %s", error)
            sys.exit(1)


def _serve(gateway: socket.socket, start: Start) -> None:
    try:
        with importing():
            about, orchestrator = prepare(start)
    except Exception as error:  # the gateway tells it, whatever it is
        if not isinstance(error, FaasmoeError):
            log.exception("the model cannot be loaded")
        send(gateway, Failed(failure_of(error)))
        return
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        log.warning("%d threads where one is expected (Python knows %d): forks may hang", threads,
                    threading.active_count())  # fmt: skip
    template = Template(gateway, orchestrator)
    send(gateway, Prepared(about))
    template.serve()


if __name__ == "__main__":
    main()
