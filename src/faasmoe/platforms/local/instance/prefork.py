"""A blank child of the zygote: it lives a whole life in rehearsal, waits for its duty, and does it."""

from __future__ import annotations

import logging
import mmap
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from faasmoe.errors import brief
from faasmoe.platforms.local.instance.instance import Duty, Handle, Instance, NoRoom, start_thread
from faasmoe.platforms.local.instance.sandbox import Sandbox
from faasmoe.platforms.local.protocol import frame, wire
from faasmoe.platforms.local.protocol.endings import NO_ROOM
from faasmoe.platforms.local.protocol.frame import INLINE, Header
from faasmoe.util.processes import die_with_parent, leave_signals_to_parent

log = logging.getLogger(__name__)


def live(parent: int, assignment: socket.socket, sandbox: Sandbox, warm_up: Sequence[Callable[[], None]]) -> None:
    """What a child does after the fork. `assignment`: where its duty comes from. Does not return."""
    status = 1
    try:
        die_with_parent(parent)
        leave_signals_to_parent()
        _rehearse()
        for function in warm_up:
            function()
        sandbox.enter()
        with assignment:
            message, fds = wire.receive(assignment)
        _become(message, fds)
        status = 0
    except wire.Lost:
        status = 0  # the zygote has no use for this one
    except NoRoom:
        status = NO_ROOM
    except Exception as error:  # noqa: BLE001 - the last frame of this process
        log.error("instance %d ended: %s: %s", os.getpid(), type(error).__name__, brief(error))
    finally:
        os._exit(status)  # no destructors of the zygote's objects


def _become(message: dict[str, Any], fds: Sequence[int]) -> None:
    Instance(Duty.receive(message, fds)).run()


def _nothing(_: str) -> Handle:
    return lambda *_: b""


def _rehearsal(orders: socket.socket) -> None:
    with suppress(NoRoom):  # its caller notices
        _become(*wire.receive(orders))


def _rehearse() -> None:
    """Live a whole life once: what every instance writes to on its way becomes this process's own beforehand."""
    table, listener = os.memfd_create("faasmoe-rehearsal", os.MFD_CLOEXEC), socket.socket(socket.AF_UNIX)
    os.ftruncate(table, mmap.PAGESIZE)
    listener.bind("")  # a name of the kernel's choice
    listener.listen(1)
    orders, order_end = socket.socketpair()
    lifeline, lifeline_end = socket.socketpair()
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(listener.getsockname())
    order = {"slot": 0, "handler": f"{__name__}:_nothing", "artifact": "", "keep_alive": 60.0, "concurrency": 1}
    with orders, order_end, lifeline, caller:
        wire.send(orders, order, [listener.detach(), lifeline_end.detach(), table])
        os.close(table)
        frame.send_call(caller, frame.pack_call(Header(INLINE, 0, 0, 0, 0, 0)), ())
        thread = threading.Thread(target=_rehearsal, args=(order_end,))
        start_thread(thread)
        try:
            frame.receive_reply(caller, memoryview(bytearray(frame.BUFFER)))
        except wire.Lost as error:
            raise NoRoom from error
        lifeline.shutdown(socket.SHUT_WR)
        thread.join()
