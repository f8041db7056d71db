"""Whether a process hangs: a pure judgement of what is seen of it at regular looks (docs/decisions/0017).

A slow process on a busy machine must not be taken for a hanging one. So what counts against a process is not time but
evidence, seen at looks that the watcher took on time: that the process is stopped, that it does nothing although an
answer is due, or that it has used much processor time without answering.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TICK = 0.5  # seconds between two looks
_LATE = 4 * TICK  # a watcher that looks after more than this did not run, as maybe nobody else did
_STOPPED_LOOKS = 2
_CLOCK_TICKS = 100.0  # USER_HZ, the same on every Linux (proc(5))


@dataclass(frozen=True, slots=True)
class Look:
    """A process at one moment."""

    stopped: bool  # by a signal or a debugger
    runnable: bool  # it runs, or waits for a core or a disk: no fault of its own if nothing comes
    cpu: float  # seconds of processor time that it has used so far


def look_at(pid: int, threads: bool = False) -> Look | None:
    """From /proc. None if there is no such process. `threads`: see whether any of its threads is runnable."""
    try:
        state, cpu = _stat(Path(f"/proc/{pid}/stat"))
        states = state
        if threads and state == "S":
            states = "".join(_stat(task / "stat")[0] for task in Path(f"/proc/{pid}/task").iterdir())
    except (OSError, IndexError, ValueError):
        return None
    if state in "ZX":
        return None
    return Look(state in "Tt", any(letter in states for letter in "RD"), cpu)


def _stat(file: Path) -> tuple[str, float]:
    fields = file.read_bytes().rpartition(b")")[2].split()
    return fields[0].decode(), (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


class Ticks:
    """Tells whether a watcher itself has run between its looks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def late(self) -> bool:
        """To be called at each look. True: much more time than `TICK` has passed since the one before."""
        last, self._last = self._last, self._clock()
        return self._last - last > _LATE


class Judge:
    """Judges one process. One look after the other; after a look that came late all evidence is forgotten."""

    def __init__(self, silent_looks: int, cpu_seconds: float) -> None:
        """How often it may be idle in a row while it owes an answer, and what it may compute until it answers."""
        self._silent_looks = silent_looks
        self._cpu_seconds = cpu_seconds
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._stopped = self._silent = 0
        self._since: float | None = None  # processor time when the answer became due
        self._last = -1.0

    def hangs(self, look: Look, owes: bool) -> str:
        """Why the process must be taken to hang; empty if it need not be.

        `owes`: it owes an answer, and already did at the look before.
        """
        idle = not look.stopped and not look.runnable and look.cpu == self._last
        self._stopped = self._stopped + 1 if look.stopped else 0
        self._silent = self._silent + 1 if owes and idle else 0
        if not owes:
            self._since = None
        elif self._since is None:
            self._since = look.cpu
        self._last = look.cpu
        if self._stopped >= _STOPPED_LOOKS:
            return "it was stopped"
        if self._silent >= self._silent_looks:
            return "it does nothing and does not answer"
        if self._since is not None and look.cpu - self._since >= self._cpu_seconds:
            return f"it has computed for {look.cpu - self._since:.0f} s and does not answer"
        return ""
