"""Starts the real `faasmoe serve` as a process and finds out where it listens."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from faasmoe.platforms.local.platform import LocalPlatform
from tests import processes
from tests.waiting import wait_until

MODEL = "faasmoe-demo"
PROMPT = "It was a dark night, and"


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]
    greeting: str

    def pool(self) -> Path:
        """The run folder of its pool."""
        daemon = processes.daemon(self.process.pid)
        assert daemon, "no daemon runs"
        command = processes.command(daemon)
        return Path(command[command.index("faasmoe.platforms.local.daemon") + 1])

    def template(self) -> int | None:
        """Process id of what forks its orchestrators, None if there is none now."""
        template = processes.template(self.process.pid)
        return template.pid if template else None

    def orchestrators(self) -> list[int]:
        """Process ids of its orchestrators, in the order of their starts."""
        return processes.orchestrators(self.process.pid)

    def orchestrator(self) -> int | None:
        """Process id of its only orchestrator, None if there is none now."""
        return next(iter(self.orchestrators()), None)

    def instances(self) -> list[int]:
        """Process ids of running instances."""
        with LocalPlatform(folder=self.pool()) as platform:
            return [int(each.id) for status in platform.status().functions for each in status.instances]


@contextmanager
def serve(
    *arguments: str,
    cwd: Path | None = None,
    end: signal.Signals = signal.SIGINT,
    runtime: Path | None = None,
    stderr: IO[str] | None = None,
) -> Iterator[Server]:
    """`runtime` is where it makes its run folders. Its database is new and empty, unless `arguments` name one."""
    with (
        tempfile.TemporaryDirectory(prefix="data-") as data,
        _served(arguments, cwd, end, runtime, stderr, data) as server,
    ):
        yield server


@contextmanager
def _served(
    arguments: Sequence[str],
    cwd: Path | None,
    end: signal.Signals,
    runtime: Path | None,
    stderr: IO[str] | None,
    data: str,
) -> Iterator[Server]:
    command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", "0"]
    command += ["--drain-seconds", "5", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    environment["FAASMOE_DATABASE"] = f"sqlite:///{data}/tenants.db"
    if runtime:
        environment["XDG_RUNTIME_DIR"] = str(runtime)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=cwd, env=environment)
    assert process.stdout is not None
    try:
        greeting = _logged_greeting(process, stderr) if "json" in arguments else _printed_greeting(process)
        found = re.search(r"(http://[\d.]+:\d+)", greeting)
        assert found
        yield Server(found[1], process, greeting)
    finally:
        process.send_signal(end)
        try:
            process.wait(timeout=30)
            assert "json" not in arguments or process.stdout.read() == "", "all lines of such a server are JSON"
        finally:
            process.kill()
            process.stdout.close()


def _printed_greeting(process: subprocess.Popen[str]) -> str:
    """The lines on standard output until the server is ready."""
    assert process.stdout is not None
    greeting = ""
    while "curl" not in greeting:
        line = process.stdout.readline()
        assert line, f"the server ended with {process.wait()} before it was ready"
        greeting += line
    return greeting


def _logged_greeting(process: subprocess.Popen[str], stderr: IO[str] | None) -> str:
    """The line that `--log-format json` writes when the server is ready. `stderr` is a file."""
    assert stderr is not None
    lines: list[str] = []

    def ready() -> bool:
        lines[:] = [line for line in Path(stderr.name).read_text().splitlines() if '"message": "ready"' in line]
        return bool(lines) or process.poll() is not None

    assert wait_until(ready, 120)
    assert lines, f"the server ended with {process.returncode} before it was ready"
    return lines[0]


def metric(server: Server, name: str) -> float:
    """Summed over its labels."""
    lines = httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines()
    values = [float(line.split()[-1]) for line in lines if re.match(rf"{re.escape(name)}[ {{]", line)]
    assert values
    return sum(values)


def wait_for_metric(server: Server, name: str, value: float, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while metric(server, name) != value and time.monotonic() < end:
        select.select([], [], [], 0.05)
    return metric(server, name) == value
