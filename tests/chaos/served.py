"""The server that is put to the test, started as users start it."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.chaos.cages import ProcessLimit
from tests.chaos.tree import Tree, marked
from tests.waiting import wait_until

DRAIN = 5  # seconds that running requests get at the end
START_SECONDS = 120.0
KEEP_ALIVE = 2.0  # seconds that an idle instance stays: cold starts happen all the time
_CLOSE_SECONDS = 5.0  # that the end may take beyond DRAIN
_PATIENCE = 120.0  # seconds after which an end that does not come is made


class Served:
    """One life of `faasmoe serve`, in `folder`, with its database at `url`. Ended by `terminate` or `kill`."""

    def __init__(self, folder: Path, database: str, options: Sequence[str], limit: ProcessLimit | None) -> None:
        self.runtime = folder / "run"
        self.log = folder / "server.log"
        self.runtime.mkdir(exist_ok=True, mode=0o700)
        begun = time.monotonic()
        command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", "0", "--database", database]
        command += ["--dtype", "float32", "--block-size", "12", "--keep-alive", str(KEEP_ALIVE)]
        command += [*options, *_drain()]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        environment["XDG_RUNTIME_DIR"] = str(self.runtime)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, bufsize=0, env=environment, start_new_session=True
            )
        self.tree = Tree(self.process.pid)
        if limit is not None:
            limit.take(self.process.pid)  # before it has started anything
        try:
            self.url = self._url(begun + START_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.start_seconds = time.monotonic() - begun

    def _url(self, end: float) -> str:
        assert self.process.stdout is not None
        said = b""
        while (left := end - time.monotonic()) > 0 and b"curl" not in said:
            if select.select([self.process.stdout], [], [], left)[0]:
                more = self.process.stdout.read(4096)
                said += more or b""
                if not more:
                    break
        found = re.search(r"at (http://[\d.]+:\d+)\n", said.decode())
        assert found, f"the server did not start: {said.decode()}\n{self.log.read_text()[-2000:]}"
        return found[1]

    @property
    def pid(self) -> int:
        """Of the gateway."""
        return self.process.pid

    def terminate(self, choice: random.Random) -> float:
        """SIGTERM to all of its processes, as systemd does it, in any order. Seconds until all had ended."""
        processes = self.tree.now()
        choice.shuffle(processes)
        begun = time.monotonic()
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_PATIENCE)
        took = time.monotonic() - begun
        self.kill()
        return took

    def kill(self) -> None:
        """SIGKILL to the gateway, if it is there; what it has started is to end by itself. May be called twice."""
        self.tree.now()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def remains(self) -> list[str]:
        """What a server that has ended has left: processes, sockets, run folders. What is left of processes ends."""
        wait_until(lambda: not self._running(), _CLOSE_SECONDS)
        running = self._running()
        found = [f"process {pid}, {role}" for pid, role in running.items()]
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in sorted(self.runtime.rglob("*")):
            inside = path.relative_to(self.runtime)
            if (
                path.is_socket()
                or len(inside.parts) > 2
                or (path.is_dir() and any(path.iterdir()) and len(inside.parts) > 1)
            ):
                found.append(f"{inside}")
        return found

    def _running(self) -> dict[int, str]:
        return {**dict.fromkeys(marked(str(self.runtime)), "of an unknown role"), **self.tree.left()}


def allowed_end() -> float:
    """Seconds within which a server has ended after SIGTERM."""
    return DRAIN + _CLOSE_SECONDS


@cache
def _drain() -> Sequence[str]:
    """How long the end may take, if that can be told."""
    shown = subprocess.run(
        [sys.executable, "-m", "faasmoe.cli.main", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    ).stdout
    return ("--drain-seconds", str(DRAIN)) if "--drain-seconds" in shown else ()
