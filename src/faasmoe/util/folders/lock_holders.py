"""Processes that hold a lock (flock(2)) on a file, as the kernel lists them. Names and command lines do not count."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path


def holders(lock: int) -> Iterator[int]:
    """Process ids of this user's other processes that hold a lock on the file that is open as `lock`."""
    wanted = os.fstat(lock)
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and _holds(int(name), wanted):
            yield int(name)


def end_holders(lock: int, seconds: float) -> bool:
    """Kill the `holders` of `lock`. Returns whether all of them have ended within `seconds`.

    Each process is opened as a descriptor and checked again before it is killed, so that a new process which got the id
    of an ended one is not hit.
    """
    wanted = os.fstat(lock)
    with ExitStack() as stack:
        killed = select.poll()
        left = 0
        for pid in list(holders(lock)):
            try:
                process = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            except OSError:  # a kernel before 5.3, or no descriptors
                return False
            stack.callback(os.close, process)
            if _holds(pid, wanted):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                killed.register(process, select.POLLIN)
                left += 1
        deadline = time.monotonic() + seconds
        while left and (wait := deadline - time.monotonic()) > 0:
            for process, _ in killed.poll(wait * 1000):
                killed.unregister(process)
                left -= 1
    return not left


def _holds(pid: int, wanted: os.stat_result) -> bool:
    folder = Path(f"/proc/{pid}")
    try:
        if folder.stat().st_uid != os.getuid():
            return False
        return any(_is_lock(folder, fd, wanted) for fd in os.listdir(folder / "fd"))
    except OSError:  # it has ended, or is not ours to look at
        return False


def _is_lock(process: Path, fd: str, wanted: os.stat_result) -> bool:
    """Whether a descriptor holds a lock (proc(5), fdinfo) on this file. The file comes last: a stat of it may hang."""
    try:
        told = (process / "fdinfo" / fd).read_text()
        if not any(line.startswith("lock:") and "FLOCK" in line for line in told.splitlines()):
            return False
        return os.path.samestat((process / "fd" / fd).stat(), wanted)
    except OSError:  # it was closed meanwhile
        return False
