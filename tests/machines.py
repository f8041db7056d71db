"""Machines of a small network, made of namespaces: each has an address, processes, and cores and memory of its own.

They are for tests and benchmarks of clusters, and ask for root on Linux, with `ip`, `unshare` and `nsenter`. Addresses
are of 127.1.0.0/24: with `route_localnet` the kernel sends them over a wire as it does others, and they stay loopback
addresses to programs, so that agents share the folder of the cluster's authority and need not join by a token.

Machines hang on a bridge. `cut` takes one off it: its link stays up, and packets are lost in silence. `impaired` puts a
forwarder (`tests.forwarder`) between the two.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import psutil

from tests.control_groups import ControlGroup, control_group

_NETWORK = 0x40000000  # CLONE_NEWNET of sched.h
_LOOPBACK = """\
route del local 127.0.0.0/8 dev lo table local
route add local 127.0.0.0/24 dev lo table local src 127.0.0.1
"""
_WAIT = "echo ready; while :; do sleep infinity & wait; done"  # for bash, which reaps what it inherits
_FORWARDER = Path(__file__).with_name("forwarder.py")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine of a network."""

    name: str
    address: str
    pid: int  # of the first process of its process namespace
    cores: Sequence[int]
    group: ControlGroup | None = field(repr=False)  # None where none can be made
    _runtime: Path
    _switch: _Switch = field(repr=False)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command that runs `arguments` on the machine."""
        entry = ["taskset", "-c", ",".join(map(str, self.cores))]
        entry += ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "-i", "-u", *arguments]
        return self.group.command(entry) if self.group else entry

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """A process whose standard output is a pipe, and which keeps its run files to itself.

        Signals go to the process, not to `nsenter`, which started it and hands on none.
        """
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "XDG_RUNTIME_DIR": str(self._runtime)}
        process = subprocess.Popen(self.command(arguments), stdout=subprocess.PIPE, text=True, env=environment)
        setattr(process, "send_signal", partial(_send_signal, process))  # noqa: B010 - a method, for mypy
        return process

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread, and what it starts meanwhile, use the machine's network and cores."""
        cores = os.sched_getaffinity(0)
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/proc/{self.pid}/ns/net", "rb") as there:
            _enter(there.fileno())
            os.sched_setaffinity(0, self.cores)
            try:
                yield
            finally:
                os.sched_setaffinity(0, cores)
                _enter(home.fileno())

    def cut(self) -> None:
        """Lose all packets from and to the machine, in silence."""
        self._switch.run(f"link set {self._port} nomaster")

    def mend(self) -> None:
        """Undo `cut`."""
        self._switch.run(f"link set {self._port} master bridge")

    @contextmanager
    def impaired(self, delay: float = 0.0, loss: float = 0.0) -> Iterator[None]:
        """Delay all packets from and to the machine by so many seconds, and lose a share of them."""
        self.cut()
        try:
            with self._switch.forwarder(self.name, self._port, delay, loss):
                yield
        finally:
            self.mend()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes for the time of a block."""
        its = _namespace(self.pid)
        stopped = [process for process in psutil.process_iter() if _namespace(process.pid) == its]
        entries = [parent for process in stopped if (parent := process.parent())]  # nsenter stops with its child
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in [*stopped, *entries]:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def kill(self) -> None:
        """End all its processes at once. Others can be started on it."""
        subprocess.run(self.command(["bash", "-c", "kill -9 -1"]), check=True)

    @property
    def _port(self) -> str:
        return f"port-{self.name}"


class _Switch:
    """A network namespace with a bridge."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.run("link set lo up\nlink add name bridge type bridge\nlink set bridge up")

    def run(self, batch: str, pid: int | None = None) -> None:
        """Commands of ip(8) in this namespace, or that of the process `pid`."""
        command = ["nsenter", "-t", str(pid or self.pid), "-n", "ip", "-batch", "-"]
        subprocess.run(command, input=batch + "\n", text=True, check=True, capture_output=True)

    def plug_in(self, name: str, address: str, pid: int) -> None:
        """Give the namespace of the process `pid` an address."""
        self.run(f"link add name port-{name} type veth peer name eth0 netns {pid}\n"
                 f"link set port-{name} master bridge up")  # fmt: skip
        localnet = "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"
        subprocess.run(["nsenter", "-t", str(pid), "-n", "sh", "-c", localnet], check=True)
        self.run(f"link set lo up\n{_LOOPBACK}addr add {address}/24 dev eth0\nlink set eth0 up", pid)

    @contextmanager
    def forwarder(self, name: str, port: str, delay: float, loss: float) -> Iterator[None]:
        """Hand packets on between a port and the bridge."""
        here, there = f"near-{name}", f"far-{name}"
        self.run(f"link add name {here} type veth peer name {there}\n"
                 f"link set {here} up\nlink set {there} master bridge up")  # fmt: skip
        command = ["nsenter", "-t", str(self.pid), "-n", sys.executable, str(_FORWARDER)]
        process = subprocess.Popen(
            [*command, port, here, str(delay), str(loss)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the forwarder did not start"
            yield
        finally:
            process.kill()
            process.communicate()
            self.run(f"link del {here}")


@cache
def missing() -> str:
    """Why there can be no machines here; empty if there can."""
    try:
        with network(1):
            return ""
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        return f"namespaces with addresses of their own cannot be made: {getattr(error, 'stderr', '') or error}"


@contextmanager
def network(count: int, cores: Sequence[Sequence[int]] = (), memory: int | None = None) -> Iterator[list[Machine]]:
    """So many machines. `cores` are those of each, all by default; `memory` is the limit of each, in bytes.

    Memory has no limit where this process may not make control groups.
    """
    with ExitStack() as stack:
        switch = _Switch(stack.enter_context(_held("--net")))
        every = sorted(os.sched_getaffinity(0))
        machines = []
        for i in range(count):
            group = stack.enter_context(control_group(f"faasmoe-{os.getpid()}-{i}", memory))
            pid = stack.enter_context(_held("--net", "--mount-proc", "--ipc", "--uts"))
            machine = Machine(
                name=f"m{i}",
                address=f"127.1.0.{i + 1}",
                pid=pid,
                cores=cores[i] if cores else every,
                _runtime=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="machine-"))),
                _switch=switch,
                group=group,
            )
            switch.plug_in(machine.name, machine.address, pid)
            machines.append(machine)
        yield machines


@contextmanager
def _held(*kinds: str) -> Iterator[int]:
    """New namespaces of these kinds and for processes, and the one that keeps them. Raises `RuntimeError`."""
    command = ["unshare", "--pid", "--fork", "--kill-child", *kinds, "bash", "-c", _WAIT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if not process.stdout or not process.stdout.readline():
                raise RuntimeError(process.stderr.read() if process.stderr else "")
            yield psutil.Process(process.pid).children()[0].pid
        finally:
            process.kill()  # its child goes with it, and with that all of its namespace


def _send_signal(entry: subprocess.Popen[str], sig: int) -> None:
    """Send a signal to what `nsenter` has started."""
    for child in psutil.Process(entry.pid).children() if entry.poll() is None else ():
        with suppress(psutil.NoSuchProcess):
            child.send_signal(sig)


def _enter(fd: int) -> None:
    """Have this thread enter a network namespace. Raises `OSError`."""
    if _libc.setns(fd, _NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
