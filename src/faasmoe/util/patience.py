"""When a process that says nothing counts as lost.

Time is counted in ticks of the caller's event loop. A loop that stood still, because it was busy or because the whole
machine was paused, has counted one tick, however long that took; and the event loop reads what has come before it runs
the next tick. So nobody is declared dead while what it said is still unread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TICK = 0.5  # seconds

_STOPPED = frozenset("Tt")  # states in /proc/PID/stat: by a signal, by a debugger
_STATE, _MAJOR_FAULTS, _USER_TICKS, _SYSTEM_TICKS = 0, 9, 11, 12  # fields after the command's name (proc(5))


@dataclass(frozen=True, slots=True)
class SilenceLimits:
    """Seconds of silence after which a process counts as lost."""

    stopped: float = 3.0  # the kernel says that it is stopped
    asleep: float = 9.0  # no thread of it has computed or read from disk meanwhile
    working: float = 30.0  # it computes, or waits for a disk, and its threads get no turn to say so


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the kernel tells of a process."""

    stopped: bool  # all of its threads
    effort: int  # processor ticks and major page faults so far


class Patience:
    """Counts the silence of one process. `look` returns its vitals, None if they cannot be told."""

    def __init__(
        self,
        look: Callable[[], Vitals | None] = lambda: None,
        limits: SilenceLimits | None = None,
        tick: float = TICK,
    ) -> None:
        self.seconds = tick  # between calls of `tick`
        self._look = look
        self._limits = limits or SilenceLimits()
        self._ticks = 0
        self._effort: int | None = None  # when the silence was noticed
        self._worked = 0  # tick at which it was last seen to have done something

    def watch(self, look: Callable[[], Vitals | None]) -> None:
        """Have `look` tell of the process from now on."""
        self._look = look

    def heard(self) -> None:
        """It has said something."""
        self._ticks, self._effort, self._worked = 0, None, 0

    def tick(self) -> str | None:
        """Another tick has passed. Returns what to say of a process that is lost, None while it is not."""
        self._ticks += 1
        silent, limits = self._ticks * self.seconds, self._limits
        if silent < min(limits.stopped, limits.asleep):
            return None
        vitals = self._look()
        if vitals and vitals.stopped and silent >= limits.stopped:
            return f"was stopped, and silent for {silent:g} s"
        if vitals and vitals.effort != self._effort:
            self._effort, self._worked = vitals.effort, self._ticks
        idle = (self._ticks - self._worked) * self.seconds
        if silent >= limits.working or (silent >= limits.asleep and idle >= limits.asleep - limits.stopped):
            return f"was silent for {silent:g} s"
        return None


def vitals(pid: int) -> Vitals | None:
    """Of process `pid`; None if there is none, or nothing can be read about it."""
    try:
        threads = [_stat(path) for path in _stats(pid)]
    except OSError:  # it has ended, or a thread of it has; or no descriptor is left
        return None
    if not threads:
        return None
    effort = sum(int(each[i]) for each in threads for i in (_MAJOR_FAULTS, _USER_TICKS, _SYSTEM_TICKS))
    return Vitals(all(each[_STATE] in _STOPPED for each in threads), effort)


def _stats(pid: int) -> Iterator[Path]:
    return Path(f"/proc/{pid}/task").glob("*/stat")


def _stat(path: Path) -> list[str]:
    """Fields of a stat file after the command's name, which may hold anything."""
    return path.read_text().rpartition(")")[2].split()
