"""Starts the daemon, and another when it dies or hangs, or when a client connects after an idle daemon has stopped.

The supervisor holds the listening socket, so that clients that connect while there is no daemon wait for the next one.
It never gives up: a start that fails is tried again after a pause.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from faasmoe.errors import PlatformError
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.protocol.endings import ended_by_itself
from faasmoe.platforms.local.protocol.messages import NAME, SOCKET
from faasmoe.platforms.local.supervisor.daemon_process import DaemonProcess
from faasmoe.platforms.local.supervisor.health import PoolHealth
from faasmoe.util.backoff import Backoff
from faasmoe.util.failure_log import FailureLog, reason_of
from faasmoe.util.folders.run_folder import RunFolder, writing
from faasmoe.util.liveness import TICK
from faasmoe.util.processes import ROLE, start

log = logging.getLogger(__name__)

_END_SECONDS = 5.0  # for a daemon to end its instances and itself
_CLOSE_SECONDS = 8.0
_PAUSES = (0.1, 8.0)  # seconds before another daemon is started: at first, and at most
_LIVED = 10.0  # seconds without a failure, after which pauses begin with the shortest again
_BACKLOG = 256  # connections that may wait for a daemon
_STDERR = 2


class Supervisor:
    """Owns a pool: its folder and its daemon. Raises `PlatformError` if the first daemon does not start."""

    def __init__(self, options: LocalOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.health = PoolHealth()
        self._options = options
        self._clock = clock
        self._closing = threading.Event()
        self._backoff = Backoff(*_PAUSES, calm=_LIVED, clock=clock)
        self._failures = FailureLog(log, clock=clock)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)  # readable once `close` was called
        self._run_folder = RunFolder()
        self._daemon: DaemonProcess | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._run, name="platform supervisor", daemon=True)
        try:
            with writing(self.folder):
                self._listener.bind(str(self.folder / SOCKET))
                (self.folder / SOCKET).chmod(0o600)
            self._listener.listen(_BACKLOG)
            self._first()
            self._thread.start()
        except BaseException:
            self._end_daemon()
            self._release()
            raise

    @property
    def folder(self) -> Path:
        """The pool's run folder, by which clients find it."""
        return self._run_folder.path

    def _first(self) -> None:
        try:
            self._daemon = self._start()
            cause = self._attend(self._daemon, until_ready=True)
        except OSError as error:
            raise PlatformError(NAME, "(all)", f"the daemon cannot be started: {reason_of(error)}") from error
        if cause:
            raise PlatformError(NAME, "(all)", f"the daemon did not start: {cause}; its messages are above")
        self.health.first()

    def _start(self) -> DaemonProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = start(
                    "faasmoe.platforms.local.daemon",
                    [str(self.folder), str(self._listener.fileno()), self._options.to_json()],
                    stdin=theirs.fileno(),
                    stdout=_STDERR,  # what a library prints must not get among our own output
                    descriptors=[self._listener.fileno(), self._run_folder.members],
                    more={ROLE: "daemon"},
                )
            except BaseException:
                ours.close()
                raise
        return DaemonProcess(process, ours, self._clock)

    def _run(self) -> None:
        """Keep a daemon running until `close`."""
        while not self._closing.is_set():
            try:
                self._daemon = self._daemon or self._start()
                cause = self._attend(self._daemon)
            except OSError as error:
                cause = f"it cannot be started: {reason_of(error)}"
            except Exception as error:  # a defect; the pool must not die of it
                log.exception("the platform's supervisor has failed")
                cause = type(error).__name__
            self._end_daemon()
            if self._closing.is_set():
                return
            if cause:
                self.health.failed(f"the platform's daemon was lost: {cause}")
                self._failures.failed("the platform's daemon was lost, another is started", cause)
                self._wait([], self._backoff.failed())
            else:
                self.health.rests()
                log.info("platform daemon idle, stopped; it restarts on the next call")
                self._wait([self._listener], None)
        self._end_daemon()  # it is there if `close` was called before this thread began

    def _attend(self, daemon: DaemonProcess, until_ready: bool = False) -> str:
        """Watch the daemon. Returns why it is lost: "" if it has stopped idle, is ready, or `close` was called."""
        next_look = self._clock() + TICK
        while not self._closing.is_set():
            self._wait([daemon], max(0.0, next_look - self._clock()))
            if daemon.hear():  # what has come is read before anything is judged
                if until_ready:
                    return ""
                if daemon.lives:
                    self.health.answered(daemon.trouble)
            if daemon.gone:
                status = daemon.end(_END_SECONDS)
                return ended_by_itself(status) if status or until_ready else ""
            if self._clock() >= next_look:
                if cause := daemon.check():
                    daemon.end(0)
                    return cause
                next_look = self._clock() + TICK
        return ""

    def _wait(self, what: list[DaemonProcess | socket.socket], seconds: float | None) -> None:
        """Wait until a source is readable, `close` was called, or the time is over."""
        poll = select.poll()
        for source in (self._wake, *what):
            poll.register(source, select.POLLIN)
        poll.poll(None if seconds is None else seconds * 1000)

    def _end_daemon(self) -> None:
        if self._daemon is not None:
            self._daemon.end(_END_SECONDS)
            self._daemon = None

    def close(self) -> None:
        """Stop the daemon and all instances, within some seconds whatever their state is. May be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        os.eventfd_write(self._wake, 1)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("the platform's daemon has not stopped yet; it stops with this process")
        self._release()

    def _release(self) -> None:
        self._listener.close()
        self._run_folder.close()
        if not self._thread.is_alive():
            os.close(self._wake)
