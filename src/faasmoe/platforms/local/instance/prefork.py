"""The life of a pre-forked worker: it lives a whole life in rehearsal, waits for its duty, and does it."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from faasmoe.platforms.local.instance.instance import Handle, Instance, NoRoom
from faasmoe.platforms.local.instance.sandbox import Sandbox
from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.endings import NO_ROOM
from faasmoe.platforms.local.protocol.frame import INLINE, Header
from faasmoe.platforms.local.protocol.payloads import Duty, encode
from faasmoe.util.forkserver.worker import Assignment

# of a rehearsal, made once: a worker has less memory of its own
_CALL = frame.pack_call(Header(INLINE, 0, 0, 0, 0, 0))
_DUTY = Duty(slot=0, handler=f"{__name__}:_ending", artifact=b"", keep_alive=60.0, concurrency=1)


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


def _ending(lifeline: str) -> Handle:
    """A function whose first call ends its instance. `lifeline`: the descriptor of the daemon's end."""

    def handle(*_: object) -> bytes:
        socket.close(int(lifeline))
        return b""

    return handle


def rehearse(warm_up: Sequence[Callable[[], None]]) -> None:
    """Live once until the instance idles, and do `warm_up`. Raises `NoRoom`.

    A worker does it so that the pages to which every instance writes are its own before it has an assignment. What only
    the end of an instance takes is left out.
    """
    _live_once()
    for function in warm_up:
        function()


def _live_once() -> None:
    table, listener = os.memfd_create("faasmoe-rehearsal", os.MFD_CLOEXEC), socket.socket(socket.AF_UNIX)
    os.ftruncate(table, mmap.PAGESIZE)
    listener.bind("")  # a name of the kernel's choice
    listener.listen(1)
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(listener.getsockname())
    caller.send(_CALL)
    lifeline, lifeline_end = socket.socketpair()
    instance = Instance.assigned(
        encode(replace(_DUTY, artifact=b"%d" % lifeline.detach())),
        [listener.detach(), lifeline_end.detach(), table],
    )
    instance.serve()
    caller.recv(frame.HEADER)  # the reply
    caller.shutdown(socket.SHUT_WR)
    caller.recv(frame.HEADER)  # the end: that is the last that the thread of the connection does
    caller.close()
    instance.close()
