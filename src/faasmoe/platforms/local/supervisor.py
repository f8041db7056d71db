"""Starts the daemon, starts it again when it dies, and, when it has ended because nobody needed it, when somebody does.

It holds the listening socket, so that whoever connects while there is no daemon waits for the next one.
"""

from __future__ import annotations

import logging
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from faasmoe.errors import PlatformError
from faasmoe.platforms.local.daemon import READY
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.run_folder import SOCKET, RunFolder, writing

log = logging.getLogger(__name__)

NAME = "local"
_START_SECONDS = 60.0
_CLOSE_SECONDS = 10.0
_SOON = 5.0  # seconds; a daemon that dies younger than this so many times in a row will not live
_MOST_SOON = 5
_BACKLOG = 256  # connections that may wait for a daemon


class Supervisor:
    """Owns a pool: its folder and its daemon. Raises `PlatformError` if the daemon does not start."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._run_folder = RunFolder()
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with writing(self.folder):
                self._listener.bind(str(self.folder / SOCKET))
                (self.folder / SOCKET).chmod(0o600)
            self._listener.listen(_BACKLOG)
            self._daemon = self._start()
        except BaseException:
            self._listener.close()
            self._run_folder.close()
            raise
        self._thread = threading.Thread(target=self._watch, name="platform supervisor", daemon=True)
        self._thread.start()

    @property
    def folder(self) -> Path:
        """Where clients find the pool."""
        return self._run_folder.path

    def _start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "faasmoe.platforms.local.daemon",
            str(self.folder),
            str(self._listener.fileno()),
            self._options.to_json(),
        ]
        inherited = [self._listener.fileno(), self._run_folder.members]
        daemon = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=inherited)
        assert daemon.stdout is not None  # noqa: S101 - it was asked for
        poll = select.poll()
        poll.register(daemon.stdout, select.POLLIN)
        if not poll.poll(_START_SECONDS * 1000) or daemon.stdout.readline().strip() != READY.encode():
            _end(daemon)
            raise PlatformError(NAME, "(all)", "the daemon did not start; its messages are above")
        return daemon

    def _watch(self) -> None:
        soon = 0
        while soon < _MOST_SOON:
            started = time.monotonic()
            status = self._daemon.wait()
            if status == 0 and not self._closing.is_set():
                log.info("nothing has run for long; the platform's daemon has ended until it is needed")
                self._wait_for_a_client()
            if self._closing.is_set():
                return
            soon = soon + 1 if status and time.monotonic() - started < _SOON else 0
            if status:
                log.warning("the platform's daemon ended with status %s; starting another", status)
            _end(self._daemon)
            try:
                self._daemon = self._start()
            except PlatformError as error:
                log.error("%s", error)
                soon += 1
            if self._closing.is_set():  # `close` has ended the one before
                _end(self._daemon)
                return
        log.error("the platform's daemon keeps ending; giving up")
        self._listener.close()  # nobody shall wait for an answer

    def _wait_for_a_client(self) -> None:
        """Returns when somebody has connected, or when `close` was called."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.poll()

    def close(self) -> None:
        """Stop the daemon and all instances. May be called twice."""
        self._closing.set()
        _end(self._daemon)
        with suppress(OSError):  # it may be closed already
            self._listener.shutdown(socket.SHUT_RDWR)  # ends `_wait_for_a_client`
        self._thread.join(_CLOSE_SECONDS)
        self._listener.close()
        self._run_folder.close()


def _end(daemon: subprocess.Popen[bytes]) -> None:
    for pipe in (daemon.stdin, daemon.stdout):
        if pipe is not None:
            pipe.close()
    try:
        daemon.wait(_CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
