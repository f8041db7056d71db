"""Daemons that are no processes, and a supervisor of them on a clock that moves only while the supervisor waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from select import POLLIN, poll
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.protocol.supervision import (
    LARGEST_PACKET,
    AskHealth,
    HealthReport,
    Ready,
    pack,
    read_request,
)
from faasmoe.platforms.local.supervisor import supervisor as module
from faasmoe.platforms.local.supervisor.daemon_process import DaemonProcess
from faasmoe.platforms.local.supervisor.supervisor import Supervisor
from faasmoe.util.liveness import ProcessState
from tests.unit.clocks import Clock

IDLE = ProcessState(stopped=False, runnable=False, cpu=1.0)
STOPPED = ProcessState(stopped=True, runnable=False, cpu=1.0)
STEP = 0.05  # seconds in which nothing new happens


@dataclass(frozen=True, kw_only=True)
class Life:
    """What a daemon does, in seconds since its start. `None`: it never does."""

    ready: float | None = 0.3
    ends: float | None = None  # by itself, with `status`
    status: int = 0
    hangs: float | None = None  # answers nothing, and does not end when it is told to
    state: ProcessState = IDLE  # as /proc tells it while it hangs
    trouble: str = ""


class Daemon:
    """A process, and its end of the socket that is its standard input."""

    def __init__(self, clock: Clock, pid: int, channel: int, life: Life) -> None:
        self.pid, self.life = pid, life
        self.begun, self.ended = clock.now, 0.0
        self.returncode: int | None = None
        self._clock = clock
        self._channel = socket.socket(fileno=os.dup(channel))
        self._channel.setblocking(False)
        self._said_ready = False

    def _age(self, since: float | None) -> bool:
        return since is not None and self._clock.now - self.begun >= since

    def act(self) -> None:
        """Do what is due."""
        if self.returncode is not None:
            return
        if self._age(self.life.ends):
            self._end(self.life.status)
        elif self._age(self.life.hangs):
            pass
        elif not self._said_ready:
            if self._age(self.life.ready):
                self._said_ready = True
                self._channel.send(pack(Ready()))
        else:
            self._answer()

    def _answer(self) -> None:
        try:
            if packet := self._channel.recv(LARGEST_PACKET):
                assert read_request(packet) == AskHealth()
                self._channel.send(pack(HealthReport(self.life.trouble)))
                return
        except BlockingIOError:
            return
        except BrokenPipeError:  # the supervisor hung up after it had asked
            pass
        self._end(0)

    def _end(self, status: int) -> None:
        self.returncode, self.ended = status, self._clock.now
        self._channel.close()

    def state(self) -> ProcessState | None:
        if self.returncode is not None:
            return None
        return self.life.state if self._age(self.life.hangs) else IDLE

    def kill(self) -> None:
        if self.returncode is None:
            self._end(-signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        end = self._clock.now + timeout
        while self.returncode is None and self._clock.now < end:
            self._clock.now += STEP
            self.act()
        if self.returncode is None:
            raise subprocess.TimeoutExpired("daemon", timeout)
        return self.returncode


class World:
    """A supervisor whose daemons live `lives` one after the other; later ones live like the last."""

    def __init__(self, *lives: Life | OSError) -> None:
        self.clock = Clock()
        self.begun = self.clock.now
        self.lives = lives
        self.starts: list[float] = []  # when a daemon was to be started
        self.daemons: list[Daemon] = []
        self.connects = 0.0  # when somebody wants the daemon, since the beginning
        self.events: list[tuple[float, Callable[[], None]]] = []

    def start(self, *_: Any, stdin: int, **__: Any) -> Daemon:
        life = self.lives[min(len(self.starts), len(self.lives) - 1)]
        self.starts.append(self.clock.now - self.begun)
        assert all(daemon.returncode is not None for daemon in self.daemons)  # there is one at a time
        if isinstance(life, OSError):
            raise life
        self.daemons.append(Daemon(self.clock, 100 + len(self.daemons), stdin, life))
        return self.daemons[-1]

    def read(self, pid: int, _: bool) -> ProcessState | None:
        return self.daemons[pid - 100].state()

    def wait(self, supervisor: Supervisor, what: Sequence[Any], seconds: float | None) -> None:
        end = float("inf") if seconds is None else self.clock.now + seconds
        while self.clock.now < end and not supervisor._closing.is_set():
            for daemon in self.daemons:
                daemon.act()
            now = self.clock.now - self.begun
            while self.events and self.events[0][0] <= now:
                self.events.pop(0)[1]()
            if supervisor._listener in what and self.connects and now >= self.connects:
                self.connects = 0.0
                return
            poller = poll()
            for source in what:
                if source is not supervisor._listener:  # on which nobody listens
                    poller.register(source, POLLIN)
            if poller.poll(0):
                return
            self.clock.now = min(end, self.clock.now + STEP)

    @contextmanager
    def supervisor(self) -> Iterator[Supervisor]:
        """It has its first daemon."""

        def wait(supervisor: Supervisor, what: Sequence[Any], seconds: float | None) -> None:
            self.wait(supervisor, what, seconds)

        with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:  # its path is short
            patch.setenv("XDG_RUNTIME_DIR", folder)
            patch.setattr(socket.socket, "bind", lambda _, path: Path(path).touch())
            patch.setattr(socket.socket, "listen", lambda *_: None)
            patch.setattr(threading.Thread, "start", lambda _: None)  # tests do what the thread would
            patch.setattr(threading.Thread, "join", lambda *_: None)
            patch.setattr(module, "start", self.start)
            patch.setattr(module, "DaemonProcess", partial(DaemonProcess, read=self.read))
            patch.setattr(Supervisor, "_wait", wait)
            try:
                supervisor = Supervisor(LocalOptions(), self.clock)
                try:
                    yield supervisor
                finally:
                    supervisor.close()
                    supervisor._run()
            finally:
                assert not list(Path(folder, "faasmoe").iterdir())  # the pool's folder is gone
                for daemon in self.daemons:
                    daemon.kill()

    def run(self, *events: tuple[float, Callable[[Supervisor], None]], seconds: float) -> None:
        """Supervise for so long. Each event is called at its time; at the end the supervisor is closed."""
        with self.supervisor() as supervisor:
            self.events = sorted(
                [(at, partial(event, supervisor)) for at, event in events] + [(seconds, supervisor.close)],
                key=lambda event: event[0],
            )
            supervisor._run()
