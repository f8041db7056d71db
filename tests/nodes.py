"""Starts real agents as processes, on loopback or on machines of a network, for tests of clusters."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from faasmoe.platforms.cluster.authority.authority import Authority
from tests.machines import Machine


@dataclass(frozen=True)
class Agent:
    name: str
    address: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def agent(
    folder: Path,
    name: str,
    *arguments: str,
    listen: str = "127.0.0.1:0",
    machine: Machine | None = None,
    own: Path | None = None,
    module: str = "faasmoe.cli.main",
) -> Iterator[Agent]:
    """An agent, which is ended by SIGTERM and must end well, unless the test has killed it.

    On a machine, it listens on the machine's address. `own` is its working directory, in which its cache lies, if not
    that of all processes here.
    """
    listen = f"{machine.address}:0" if machine and listen.startswith("127.0.0.1:") else listen
    command = [sys.executable, "-m", module, "node", "--name", name, "--listen", listen]
    command += ["--cluster-folder", str(folder / "cluster"), "--log-level", "warning", *arguments]
    process = machine.start(command) if machine else _start(command, own)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"listens on (\S+)", line)
        assert found, f"the agent ended with {process.wait()}: {line}"
        yield Agent(name, found[1], process)
        process.terminate()
        assert process.wait(timeout=30) in (0, -9)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _start(command: Sequence[str], own: Path | None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if own:
        own.mkdir(exist_ok=True)
        environment |= {"FAASMOE_CACHE": str(own / "cache"), "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=own)


@contextmanager
def cluster(
    folder: Path,
    names: Sequence[str] = ("a", "b"),
    *arguments: str,
    machines: Sequence[Machine] = (),
    module: str = "faasmoe.cli.main",
) -> Iterator[list[Agent]]:
    """Agents with an authority and a list of them in `folder`; see `options`. Each on its machine, if there are any."""
    Authority(folder / "cluster")  # nodes make it on loopback alone
    hosts: Sequence[Machine | None] = machines or [None] * len(names)
    with ExitStack() as stack:
        agents = [
            stack.enter_context(agent(folder, name, *arguments, machine=host, module=module))
            for name, host in zip(names, hosts, strict=True)
        ]
        (folder / "nodes").write_text("".join(f"{each.address}  # {each.name}\n" for each in agents))
        yield agents


def options(folder: Path) -> dict[str, object]:
    """Options of the platform for the cluster in `folder`."""
    return {"nodes_file": str(folder / "nodes"), "cluster_folder": str(folder / "cluster")}
