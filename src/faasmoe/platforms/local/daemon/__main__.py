"""The daemon's process. It starts the first zygote at once: both then import what they need at the same time.

python -m faasmoe.platforms.local.daemon FOLDER LISTENER OPTIONS
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from faasmoe.platforms.local.daemon.zygote_process import start_zygote
from faasmoe.platforms.local.protocol.wire import raise_descriptor_limit
from faasmoe.util.forkserver.server_process import ServerProcess
from faasmoe.util.processes import leave_signals_to_parent


def main() -> None:
    """Serve until standard input closes, or nobody needs it."""
    leave_signals_to_parent()
    raise_descriptor_limit()
    os.umask(0o077)
    zygote: ServerProcess | None = None
    with suppress(OSError):  # it is tried again when it is needed, and what is in the way is logged then
        zygote = start_zygote()
    from faasmoe.platforms.local.daemon.daemon import run  # noqa: PLC0415 - while the zygote imports

    run(sys.argv[1:], zygote)


if __name__ == "__main__":
    main()
