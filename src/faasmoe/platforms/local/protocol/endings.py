"""Exit statuses of the pool's processes, and what they mean."""

from __future__ import annotations

import os
import signal

NO_ROOM = os.EX_TEMPFAIL  # of an instance: the system has no more threads, processes or descriptors for it

_REASONS = {
    signal.SIGBUS: "a file that it maps was cut short or cannot be read",
    signal.SIGKILL: "by somebody, or by the kernel for want of memory",
}


def cause_of(status: int) -> str:
    """Why a process ended, from its exit code as `os.waitstatus_to_exitcode` gives it; empty if all was well."""
    if status >= 0:
        return f"it ended with status {status}" if status else ""
    try:
        number = signal.Signals(-status)
    except ValueError:  # a real-time signal
        return f"killed by signal {-status}"
    return f"killed by {number.name}" + (f": {_REASONS[number]}" if number in _REASONS else "")


def ended_by_itself(status: int | None) -> str:
    """Why a process ended that should not have; None: it was killed and is still ending."""
    if status is None or status < 0:
        return cause_of(-signal.SIGKILL if status is None else status)
    return f"it ended with status {status}; its messages say why"
