"""The zygote: the fork server that has imported what functions need; instances import nothing.

It obeys the daemon over a socket that it inherits, and ends when that closes. A few workers are forked ahead of time
and wait for a duty, so that an activation does not wait for a fork.

    python -m faasmoe.platforms.local.instance.zygote DESCRIPTOR PARENT
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from faasmoe.errors import brief
from faasmoe.platforms.local.instance.instance import NoRoom
from faasmoe.platforms.local.instance.prefork import live, rehearse
from faasmoe.platforms.local.instance.sandbox import prepare
from faasmoe.platforms.local.protocol.payloads import PreloadFailed, encode, read_preload
from faasmoe.platforms.local.protocol.public_text import public
from faasmoe.util.forkserver.connection import Connection
from faasmoe.util.forkserver.messages import Loaded, LoadFailed
from faasmoe.util.forkserver.server import ForkServer, run
from faasmoe.util.gc_freeze import immortalise, importing, keep_imported

log = logging.getLogger("faasmoe.platforms.local.instance.zygote")  # it is run as __main__

ROLE = "instance"
# Python counts the first uses of a function in the function's own bytes, and then adapts its code. What is adapted here
# is shared by all instances; what is not, each instance adapts in pages of its own. CPython 3.11 counts to 8.
_REHEARSALS = 9


def main() -> None:
    """Import and warm up what functions need, then fork instances until the daemon hangs up."""
    run("instances", _serve)


def _serve(daemon: Connection) -> None:
    preload = read_preload(daemon.load())
    with importing():
        try:
            modules = [importlib.import_module(name) for name in preload.modules]
        except ImportError as error:
            log.exception("what functions need cannot be imported")
            daemon.send(LoadFailed(encode(PreloadFailed(public(brief(error))))))
            return
        keep_imported()
        warm_up = [module.warm_up for module in modules if hasattr(module, "warm_up")]
        for function in warm_up:
            function()
        _rehearse(1, warm_up)
    work = partial(live, sandbox=prepare(), warm_up=warm_up)
    server = ForkServer(daemon, ROLE, work, prefork=preload.prefork, settle=partial(_settle, warm_up))
    daemon.send(Loaded())
    server.serve()


def _settle(warm_up: Sequence[Callable[[], None]]) -> None:
    """What gives later instances less memory of their own, and takes longer than a start from nothing may."""
    _rehearse(_REHEARSALS - 1, warm_up)
    immortalise()


def _rehearse(times: int, warm_up: Sequence[Callable[[], None]]) -> None:
    try:
        for _ in range(times):
            rehearse(warm_up)
    except NoRoom:
        log.warning("no thread or descriptor for a rehearsal; each instance takes more memory")


if __name__ == "__main__":
    main()
