"""The process that has loaded the tokenizer, and forks readers: none of them imports or loads anything.

It obeys the gateway over a socket that it inherits, and ends when that closes, and with it all readers.

python -m faasmoe.readers.nursery DESCRIPTOR PARENT
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from faasmoe.errors import FaasmoeError, MessageError
from faasmoe.readers import reader
from faasmoe.readers.messages import (
    LARGEST_PACKET,
    Ended,
    Failed,
    Fork,
    Forked,
    FromNursery,
    Kill,
    Load,
    Loaded,
    ToNursery,
    pack,
    read_order,
)
from faasmoe.readers.reader import GatewayLeft, Read
from faasmoe.util import logs
from faasmoe.util.gc_freeze import importing
from faasmoe.util.processes import Children, die_with_parent, leave_signals_to_parent

log = logging.getLogger("faasmoe.readers.nursery")  # it is run as __main__

ROLE = "reader"
_PR_SET_NAME = 15  # linux/prctl.h


class Nursery:
    """Forks a reader that runs `read` for each descriptor that it is given, reaps, and tells of ends."""

    def __init__(self, gateway: socket.socket, read: Read) -> None:
        self._gateway = gateway
        self._read = read
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

    def _obey(self, order: ToNursery, fds: list[int]) -> None:
        try:
            if isinstance(order, Fork) and len(fds) == 1:
                self._fork(order, fds[0])
            elif isinstance(order, Kill):
                for pid in [pid for pid, number in self._numbers.items() if number == order.number]:
                    os.kill(pid, signal.SIGKILL)  # not reaped yet, so that its id is nobody else's
            else:
                raise MessageError(f"{type(order).__name__} with {len(fds)} descriptors is no order")
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, order: Fork, connection: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            log.error("no reader can be forked: %s", error.strerror)
            send(self._gateway, Ended(order.number, 1))
            return
        if pid == 0:
            self._become(parent, connection, order.niceness)
        self._numbers[pid] = order.number
        send(self._gateway, Forked(order.number, pid))

    def _become(self, parent: int, connection: int, niceness: int) -> None:
        """What the child does. Does not return."""
        status = 1
        try:
            die_with_parent(parent)
            self._children.leave()
            os.close(self._gateway.detach())
            ctypes.CDLL(None).prctl(_PR_SET_NAME, ROLE.encode())
            logs.inherit(ROLE)
            os.nice(niceness)
            with suppress(GatewayLeft):
                reader.run(socket.socket(fileno=connection), self._read)
            status = 0
        except Exception:  # the last frame of this process
            log.exception("a reader has failed")
        finally:
            os._exit(status)  # no destructors of the nursery's objects

    def _reap(self) -> None:
        for pid, code in self._children.ended():
            if (number := self._numbers.pop(pid, None)) is not None:
                send(self._gateway, Ended(number, code))


def receive(gateway: socket.socket) -> tuple[ToNursery, list[int]]:
    """An order and the descriptors that came with it. Raises `GatewayLeft` or `MessageError`."""
    try:
        packet, fds, _, _ = socket.recv_fds(gateway, LARGEST_PACKET, 1)
    except OSError as error:
        raise GatewayLeft from error
    if not packet:
        raise GatewayLeft
    return read_order(packet), fds


def send(gateway: socket.socket, event: FromNursery) -> None:
    """Raises `GatewayLeft`."""
    try:
        gateway.send(pack(event))
    except OSError as error:
        raise GatewayLeft from error


def main() -> None:
    """Import, load what the gateway says, then fork readers until it hangs up."""
    descriptor, parent = map(int, sys.argv[1:])
    die_with_parent(parent)
    leave_signals_to_parent()
    logs.inherit("nursery")
    gateway = socket.socket(fileno=descriptor)
    with suppress(GatewayLeft):
        try:
            _serve(gateway)
        except MessageError as error:
            log.error("the gateway sent %s", error)
            sys.exit(1)


def _serve(gateway: socket.socket) -> None:
    with importing():
        from faasmoe.api.reading import Reading  # noqa: PLC0415 - takes a second, while the model is loaded
        from faasmoe.model.text.prompts import PromptEncoder  # noqa: PLC0415

        order, _ = receive(gateway)
        if not isinstance(order, Load):
            raise MessageError(f"{type(order).__name__}, which is not Load, first")
        try:
            reading = Reading(PromptEncoder.saved(Path(order.folder), order.control), order.bounds)
        except FaasmoeError as error:
            send(gateway, Failed(str(error)))
            return
    nursery = Nursery(gateway, reading.read)
    send(gateway, Loaded())
    nursery.serve()


if __name__ == "__main__":
    main()
