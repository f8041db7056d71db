"""A Ray cluster of two machines, each with an address, processes, mounts and shared memory of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests import machines, ray_nodes
from tests.machines import Machine
from tests.tools import tool
from tests.waiting import wait_until

pytestmark = ray_nodes.needs_ray

RAY = str(Path(sys.executable).with_name("ray"))
START_SECONDS = 120.0  # for Ray to start: on two slow cores, beside another test, 30 have not been enough
START = ("--block", "--num-cpus=1", "--memory=1073741824", "--object-store-memory=83886080")


class Program:
    """A program on a machine."""

    def __init__(self, machine: Machine, folder: Path, arguments: Sequence[str]) -> None:
        environment = {**os.environ, **ray_nodes.QUIET, "RAY_AUTH_TOKEN": "t" * 32, "RAY_TMPDIR": str(folder)}
        environment["XDG_RUNTIME_DIR"] = str(folder)
        name, *arguments = machine.command(arguments)
        self.process = subprocess.Popen(
            [tool(name, "util-linux"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, command: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def running(machine: Machine, folder: Path, *arguments: str) -> Iterator[Program]:
    program = Program(machine, folder, arguments)
    try:
        yield program
    finally:
        program.process.kill()  # all else on the machine ends with its namespaces
        with program.process:
            pass


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Program, Machine]]:
    """A server on the first machine, which has Ray's head, and the second machine."""
    if why := machines.missing():
        pytest.skip(why)
    with ExitStack() as stack:
        first, second = stack.enter_context(machines.network(2))
        folders = [Path(stack.enter_context(TemporaryDirectory(dir="/tmp"))) for _ in range(3)]
        head = f"{first.address}:6379"
        start = [RAY, "start", *START, "--node-ip-address"]
        at_first = [*start, first.address, "--head", "--port=6379", "--include-dashboard=false"]
        started = stack.enter_context(running(first, folders[0], *at_first)).process
        with first.inside():
            assert wait_until(lambda: connects(first.address), START_SECONDS), (
                f"Ray's head has not started; its status is {started.poll()}"
            )
        stack.enter_context(running(second, folders[1], *start, second.address, f"--address={head}"))
        command = [sys.executable, "-m", "tests.ray_server", str(folders[2]), head]
        yield stack.enter_context(running(first, folders[0], *command)), second


def connects(address: str) -> bool:
    with suppress(OSError), socket.create_connection((address, 6379), 1):
        return True
    return False


def test_functions_run_on_both_machines(two: tuple[Program, Machine]) -> None:
    server, _ = two
    assert wait_until(lambda: server.ask("hosts") == ["127.1.0.1", "127.1.0.2"], START_SECONDS)
    assert server.ask("answers")


def test_a_machine_that_is_cut_off_is_not_waited_for(two: tuple[Program, Machine]) -> None:
    server, second = two
    second.cut()
    try:
        assert server.ask("answers")
        assert wait_until(lambda: server.ask("hosts") == ["127.1.0.1"])
    finally:
        second.mend()
    assert wait_until(lambda: server.ask("hosts") == ["127.1.0.1", "127.1.0.2"])


def test_a_machine_that_dies_costs_no_call(two: tuple[Program, Machine]) -> None:
    server, second = two
    second.kill()
    assert server.ask("answers")
    assert wait_until(lambda: server.ask("hosts") == ["127.1.0.1"])  # no call may have gone to the other one
    assert server.ask("answers")
