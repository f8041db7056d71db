"""The process that forks orchestrators, spoken to directly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from faasmoe.experts import PRELOAD
from faasmoe.fleet.template_process import ENVIRONMENT
from faasmoe.model.checkpoint.source import resolve
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import ServingConfig
from faasmoe.protocol.messages import (
    HEADER,
    VERSION,
    Start,
    StatsRequest,
    Submit,
    encode,
    pack,
    read_about,
    read_failure,
)
from faasmoe.util.forkserver.messages import (
    LARGEST_PACKET,
    Ended,
    Event,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Killed,
    Load,
    Loaded,
    LoadFailed,
    read_event,
)
from faasmoe.util.forkserver.messages import pack as packet


class Template:
    """The process that forks orchestrators, and the gateway's part in it."""

    def __init__(self, stderr: IO[str]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "faasmoe.orchestrator.template", str(theirs.fileno()), str(os.getpid())]
        environment = {**os.environ, **ENVIRONMENT}
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=stderr, env=environment)
        theirs.close()
        self._ours.settimeout(100)
        self._forks = 0

    def send(self, sent: bytes) -> None:
        self._ours.send(sent)

    def receive(self) -> Event:
        return read_event(self._ours.recv(LARGEST_PACKET))

    def fork(self) -> socket.socket:
        self._forks += 1
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._ours, [packet(Fork(self._forks))], [theirs.fileno()])
        forked = self.receive()
        assert isinstance(forked, Forked)
        assert forked.number == self._forks
        assert psutil.Process(forked.pid).ppid() == self.process.pid
        return ours

    def status(self) -> int:
        """Of the orchestrator that was forked last, when it has ended."""
        ended = self.receive()
        assert isinstance(ended, Ended)
        assert ended.number == self._forks
        return ended.status

    def close(self) -> None:
        self._ours.close()
        try:
            assert self.process.wait(30) in (0, 1)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("template") / "log"


@pytest.fixture(scope="module")
def template(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    config = ServingConfig("demo", str(resolve(None).folder))
    with start("local", PRELOAD) as pool, log.open("w") as stderr:
        made = Template(stderr)
        order = Start(config, "local", pool.address, str(tmp_path_factory.mktemp("artifacts")))
        made.send(packet(Load(encode(order))))
        loaded = made.receive()
        assert isinstance(loaded, Loaded)
        assert read_about(loaded.payload).functions > 0
        yield made
        made.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
        HEADER.pack(VERSION, (1 << 32) - 1),
        HEADER.pack(VERSION + 1, 3) + b"abc",
        HEADER.pack(VERSION, 3) + b"\xff\xff\xff",
        HEADER.pack(VERSION, 40) + b"\x91" * 40,
        packet(Fork(1)),
        pack(StatsRequest()) + HEADER.pack(VERSION, 1) + b"\xc1",
        os.urandom(1 << 16),
    ],
    ids=["http", "zeros", "huge", "version", "garbage", "deep", "order", "later", "random"],
)
def test_hostile_bytes_end_that_orchestrator_with_one_line(template: Template, log: Path, sent: bytes) -> None:
    before = log.read_text()
    with template.fork() as link:
        link.sendall(sent)
        assert template.status() == 1
    more = log.read_text().removeprefix(before)
    assert "the gateway sent" in more
    assert "Traceback" not in more


@pytest.mark.parametrize(
    "sent", [b"", b"\x01", HEADER.pack(VERSION, 100) + b"x", pack(StatsRequest()), pack(Submit(1, ()))]
)
def test_a_gateway_that_hangs_up_ends_the_orchestrator(template: Template, sent: bytes) -> None:
    with template.fork() as link:
        link.sendall(sent)
        link.shutdown(socket.SHUT_WR)
        assert template.status() == 0


def test_it_has_no_threads_that_a_fork_would_lose(template: Template, log: Path) -> None:
    assert len(os.listdir(f"/proc/{template.process.pid}/task")) == 1
    assert "forks may hang" not in log.read_text()


def test_one_that_does_not_end_by_itself_is_killed(template: Template) -> None:
    with template.fork():
        for number in (99, template._forks):  # the first is unknown
            template.send(packet(Kill(number)))
            assert template.receive() == Killed(number)
        assert template.status() == -signal.SIGKILL


def test_a_fork_whose_connection_did_not_arrive_fails_alone(template: Template) -> None:
    """The kernel drops it where the template has no descriptor left."""
    template.send(packet(Fork(99)))
    assert template.receive() == ForkFailed(99, "Too many open files")
    with template.fork() as link:
        link.shutdown(socket.SHUT_WR)
        assert template.status() == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00",
        os.urandom(600),
        bytes(LARGEST_PACKET + 1),
        pack(StatsRequest()),
        packet(Kill(1)),
        packet(Load(encode(StatsRequest()))),
        packet(Load(encode(Start(ServingConfig("m", "/gone"), "local", "/", "/")))),
    ],
    ids=["zero", "random", "too long", "message", "order", "payload", "no checkpoint"],
)
def test_a_template_that_is_told_nonsense_ends(tmp_path: Path, sent: bytes) -> None:
    log = tmp_path / "log"
    with log.open("w") as stderr:
        made = Template(stderr)
        made.send(sent)
        if b"Start" in sent:
            failed = made.receive()
            assert isinstance(failed, LoadFailed)
            assert "/gone" in read_failure(failed.payload).message
        made.process.wait(60)
        made.close()
    assert ("the client sent" in log.read_text()) == (b"Start" not in sent)
    assert "Traceback" not in log.read_text()
