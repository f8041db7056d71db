"""Starts the real `faasmoe serve` as a process and finds out where it listens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from faasmoe.platforms.local.platform import LocalPlatform


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]
    greeting: str

    def pool(self) -> Path:
        """The run folder of its pool."""
        module = "faasmoe.platforms.local.daemon"
        commands = [_command(child) for child in psutil.Process(self.process.pid).children()]
        return next(Path(command[command.index(module) + 1]) for command in commands if module in command)

    def template(self) -> int | None:
        """Process id of what forks its orchestrators, None if there is none now."""
        module = "faasmoe.orchestrator.template"
        children = psutil.Process(self.process.pid).children()
        return next((child.pid for child in children if module in _command(child)), None)

    def orchestrators(self) -> list[int]:
        """Process ids of its orchestrators, in the order of their starts."""
        template = self.template()
        try:
            children = psutil.Process(template).children() if template else []
            return [child.pid for child in sorted(children, key=psutil.Process.create_time)]
        except psutil.NoSuchProcess:
            return []

    def orchestrator(self) -> int | None:
        """Process id of its only orchestrator, None if there is none now."""
        return next(iter(self.orchestrators()), None)

    def instances(self) -> list[int]:
        """Process ids of running instances."""
        with LocalPlatform(folder=self.pool()) as platform:
            return [pid for status in platform.status().functions for pid in status.instances]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended meanwhile
        return []


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
    command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", "0", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    environment["FAASMOE_DATABASE"] = f"sqlite:///{data}/tenants.db"
    if runtime:
        environment["XDG_RUNTIME_DIR"] = str(runtime)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=cwd, env=environment)
    assert process.stdout is not None
    try:
        greeting = ""
        while "curl" not in greeting:
            line = process.stdout.readline()
            assert line, f"the server ended with {process.wait()} before it was ready"
            greeting += line
        found = re.search(r"at (http://[\d.]+:\d+)\n", greeting)
        assert found
        yield Server(found[1], process, greeting)
    finally:
        process.send_signal(end)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            process.stdout.close()
