"""The life of a pre-forked worker: it lives a whole life in rehearsal, waits for its duty, and does it."""

from __future__ import annotations

import mmap
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from faasmoe.platforms.local.instance.instance import Handle, Instance, NoRoom, start_thread
from faasmoe.platforms.local.instance.sandbox import Sandbox
from faasmoe.platforms.local.protocol import frame, wire
from faasmoe.platforms.local.protocol.endings import NO_ROOM
from faasmoe.platforms.local.protocol.frame import INLINE, Header
from faasmoe.platforms.local.protocol.payloads import Duty, encode
from faasmoe.util.forkserver.connection import Connection
from faasmoe.util.forkserver.messages import Fork
from faasmoe.util.forkserver.worker import Assignment, Worker, wait_for_assignment


def live(wait: Callable[[], Assignment], sandbox: Sandbox, warm_up: Sequence[Callable[[], None]]) -> int:
    """The work of a child of the zygote. Returns its exit status. `wait` returns its duty."""
    try:
        rehearse(warm_up)
        sandbox.enter()
        _become(wait)
    except NoRoom:
        return NO_ROOM
    return 0


def _become(wait: Callable[[], Assignment]) -> None:
    """Raises `NoRoom`."""
    try:
        assignment = wait()
    except OSError as error:  # this process has no descriptors for it
        raise NoRoom from error
    Instance.assigned(*assignment).run()


def _nothing(_: str) -> Handle:
    return lambda *_: b""


def _rehearsal(wait: Callable[[], Assignment]) -> None:
    with suppress(NoRoom):  # its caller notices
        _become(wait)


def rehearse(warm_up: Sequence[Callable[[], None]]) -> None:
    """Live a whole life once, and do `warm_up`. Raises `NoRoom`.

    A worker does it so that the pages to which every instance writes are its own before it has an assignment.
    """
    _live_once()
    for function in warm_up:
        function()


def _live_once() -> None:
    table, listener = os.memfd_create("faasmoe-rehearsal", os.MFD_CLOEXEC), socket.socket(socket.AF_UNIX)
    os.ftruncate(table, mmap.PAGESIZE)
    listener.bind("")  # a name of the kernel's choice
    listener.listen(1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline, lifeline_end = socket.socketpair()
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(listener.getsockname())
    duty = Duty(slot=0, handler=f"{__name__}:_nothing", artifact=b"", keep_alive=60.0, concurrency=1)
    with listener, theirs, lifeline, lifeline_end, caller:
        descriptors = [listener.fileno(), lifeline_end.fileno(), table]
        Worker(os.getpid(), ours).assign(Fork(0, encode(duty)), descriptors)
        os.close(table)
        listener.close()
        lifeline_end.close()
        frame.send_call(caller, frame.pack_call(Header(INLINE, 0, 0, 0, 0, 0)), ())
        thread = threading.Thread(target=_rehearsal, args=(partial(wait_for_assignment, Connection(theirs)),))
        start_thread(thread)
        try:
            frame.receive_reply(caller, memoryview(bytearray(frame.BUFFER)))
        except wire.Lost as error:
            raise NoRoom from error
        lifeline.shutdown(socket.SHUT_WR)
        thread.join()
