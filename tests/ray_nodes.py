"""Starts a Ray cluster on loopback, in a process of its own, for tests. Needs the package `ray`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

INSTALLED, MISSING = find_spec("ray") is not None, "Ray is not installed; it comes with the extra ray"
needs_ray = pytest.mark.skipif(not INSTALLED, reason=MISSING)

_WORKER = "PYTEST_XDIST_WORKER"  # its name in the environment

QUIET = {  # fewer processes, and none that tells others
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_DISABLE_MEMORY_MONITOR": "1",
    "RAY_AUTH_MODE": "token",
}


@dataclass(frozen=True)
class RayNodes:
    """A Ray cluster whose nodes are processes of this machine."""

    folder: Path  # of the cluster's keys
    address: str
    process: subprocess.Popen[str]

    def options(self, **more: object) -> dict[str, object]:
        """Options of the platform for it."""
        return {
            "address": self.address,
            "cluster_folder": str(self.folder),
            "node_gib": 0.5,
            "start_seconds": 60.0,
            **more,
        }

    def ask(self, *command: object) -> Any:
        """Have the process carry out a method of `tests.ray_process.Nodes`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def processes(name: str) -> list[psutil.Process]:
    """Those that this process's tests have started whose command line ends with, or begins with, `name`.

    Another process of pytest-xdist may have a Ray cluster at the same time; all that it starts has its name.
    """
    found = []
    for process in psutil.process_iter(["cmdline", "exe"]):
        line = process.info["cmdline"] or [""]
        ours = os.path.realpath(sys.executable) == process.info["exe"]
        if ours and (line[-1] == name or line[0].startswith(name)) and _worker(process) == os.environ.get(_WORKER):
            found.append(process)
    return found


def _worker(process: psutil.Process) -> str | None:
    with suppress(psutil.NoSuchProcess):
        return process.environ().get(_WORKER)
    return None


def kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        process.kill()


@contextmanager
def ray_nodes(nodes: int = 2, **settings: str) -> Iterator[RayNodes]:
    """Nodes of one core each, the first of which has Ray's head. `settings` are variables of its environment."""
    with tempfile.TemporaryDirectory(
        dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # Ray's sockets need a short path
        environment = {**os.environ, **QUIET, **settings, "RAY_AUTH_TOKEN": os.urandom(16).hex()}
        environment["RAY_TMPDIR"] = folder
        command = [sys.executable, "-m", "tests.ray_process", str(nodes)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(
            command, **pipes, text=True, env=environment, start_new_session=True
        )  # Ray ends all of its process group when its head is lost
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())
            with pytest.MonkeyPatch.context() as patch:
                for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
                    patch.setenv(name, environment[name])
                yield RayNodes(Path(folder) / "keys", address, process)
        finally:
            process.communicate(timeout=60)
