"""Processes that fork, and their children: what they inherit, which end with them, and of whose ends they hear."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # made once: forked children share it
ROLE = "FAASMOE_ROLE"  # environment variable of a process: its role in measurements, such as "daemon"
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OURS = frozenset({"FAASMOE_LOG", "FAASMOE_CACHE", "FAASMOE_KERNELS"})  # what children read
_SECRET = re.compile(
    r"FAASMOE_.*|PG(PASS|SERVICE|SSL).*|.*(PASSWORD|PASSWD|SECRET|TOKEN|_KEY|CREDENTIALS|DATABASE_URL)",
    re.IGNORECASE,
)


def environment() -> dict[str, str]:
    """This process's environment without what looks like a secret: no child needs one."""
    return {name: value for name, value in os.environ.items() if name in _OURS or not _SECRET.fullmatch(name)}


def start(
    module: str,
    arguments: Sequence[str] = (),
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = None,
    descriptors: Sequence[int] = (),
    more: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Run a module of ours in a process of its own, with `environment()` and what `more` adds. Raises `OSError`.

    The process imports nothing from the current folder, which may be a checkpoint's: a file there that is named like a
    module would be run in its place. Signals that end processes wait until the child has called
    `leave_signals_to_parent`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=stdin,
            stdout=stdout,
            pass_fds=descriptors,
            env={**environment(), **(more or {})},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """Ignore what a terminal or a service manager sends to all processes: a parent says when its children end."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, whatever kills that."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked


def set_name(name: str) -> None:
    """Set this process's name in the process table; the kernel keeps 15 bytes."""
    _LIBC.prctl(_PR_SET_NAME, name.encode())


class Children:
    """Tells of children that have ended. One a process, made by its main thread."""

    def __init__(self) -> None:
        self._wake, self._child_ended = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._child_ended, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the pipe tells

    def fileno(self) -> int:
        """Readable when `ended` has something to tell."""
        return self._wake

    def ended(self) -> Iterator[tuple[int, int]]:
        """Process id and exit code of each child that has ended since; minus a signal's number if that killed it."""
        with suppress(BlockingIOError):
            os.read(self._wake, 4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                yield ended[0], os.waitstatus_to_exitcode(ended[1])

    def leave(self) -> None:
        """To be called by a child that was forked: these are its siblings.

        The handler of SIGCHLD, which does nothing, stays: to name it, `signal` writes to memory that is still shared.
        """
        signal.set_wakeup_fd(-1)
        os.close(self._wake)
        os.close(self._child_ended)
