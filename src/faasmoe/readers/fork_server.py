"""The fork server that has loaded the tokenizer; readers import and load nothing.

It obeys the gateway over a socket that it inherits, and ends when that closes, and with it all readers.

python -m faasmoe.readers.fork_server DESCRIPTOR PARENT
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faasmoe.errors import FaasmoeError
from faasmoe.readers import reader
from faasmoe.readers.messages import SetupFailed, pack, read_options, read_setup
from faasmoe.readers.reader import GatewayLeft
from faasmoe.util.forkserver.connection import Connection
from faasmoe.util.forkserver.messages import Loaded, LoadFailed
from faasmoe.util.forkserver.server import ForkServer, run
from faasmoe.util.forkserver.worker import Assignment
from faasmoe.util.gc_freeze import importing

ROLE = "reader"


def main() -> None:
    """Import, load the tokenizer, then fork readers until the gateway hangs up."""
    run("readers", _serve)


def _serve(gateway: Connection) -> None:
    with importing():
        from faasmoe.model.text.prompts import PromptEncoder  # noqa: PLC0415
        from faasmoe.readers.parser import RequestParser  # noqa: PLC0415 - takes a second, while the model is loaded

        setup = read_setup(gateway.load())
        try:
            parser = RequestParser(PromptEncoder.saved(Path(setup.folder), setup.control), setup.bounds)
        except FaasmoeError as error:
            gateway.send(LoadFailed(pack(SetupFailed(str(error)))))
            return

    def work(wait: Callable[[], Assignment]) -> int:
        payload, (connection,) = wait()
        os.nice(read_options(payload).niceness)
        with suppress(GatewayLeft):
            reader.run(socket.socket(fileno=connection), parser.parse)
        return 0

    server = ForkServer(gateway, ROLE, work)
    gateway.send(Loaded())
    server.serve()


if __name__ == "__main__":
    main()
