"""Whether a process hangs: judged by evidence, not by deadlines (docs/decisions/0017).

A slow process on a busy machine must not be taken for a hanging one, and after a pause of the whole machine every
process looks dead to every other. So two judges count what they see, not the time that has passed:

- `HangJudge` is for a process that answers when it is asked. It is fed with looks that its watcher took on time.
- `HeartbeatMonitor` is for a process that speaks by itself. It counts ticks of the event loop that reads the messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TICK = 0.5  # seconds between two looks, or two ticks
LATE = 4 * TICK  # a watcher that looks after more than this did not run, as maybe no other process did
_CLOCK_TICKS = 100.0  # USER_HZ, the same on every Linux (proc(5))
_STATE, _MAJOR_FAULTS, _USER, _SYSTEM = 0, 9, 11, 12  # fields of /proc/PID/stat after the command's name


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A process at one moment."""

    stopped: bool  # by a signal or a debugger
    runnable: bool  # it runs, or waits for a core or a disk: no fault of its own if no answer comes
    cpu: float  # seconds of CPU time so far
    faults: int = 0  # pages that it has waited for a disk to read

    def worked_since(self, earlier: ProcessState | None) -> bool:
        """Whether the process has used CPU time or read from a disk since `earlier`; True if that is None."""
        return earlier is None or (self.cpu, self.faults) != (earlier.cpu, earlier.faults)


def read_state(pid: int, threads: bool = False) -> ProcessState | None:
    """Read a process's state from /proc. None if there is no such process, or it cannot be read.

    `threads`: a process is runnable if any of its threads is, not only the first.
    """
    try:
        stat = _stat(Path(f"/proc/{pid}/stat"))
        state = states = stat[_STATE]
        if threads and state == "S":
            states = "".join(_stat(task / "stat")[_STATE] for task in Path(f"/proc/{pid}/task").iterdir())
        cpu = (int(stat[_USER]) + int(stat[_SYSTEM])) / _CLOCK_TICKS
        faults = int(stat[_MAJOR_FAULTS])
    except (OSError, IndexError, ValueError):
        return None
    if state in "ZX":
        return None
    return ProcessState(state in "Tt", any(letter in states for letter in "RD"), cpu, faults)


def _stat(file: Path) -> list[str]:
    """Fields after the command's name, which may hold anything."""
    return file.read_text(errors="replace").rpartition(")")[2].split()


ReadState = Callable[[int, bool], ProcessState | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HangLimits:
    """Evidence after which a process counts as hanging."""

    stopped_looks: int = 2  # in a row that find it stopped
    idle_looks: int = 10  # in a row that find it idle while it owes an answer
    cpu_seconds: float = 20.0  # of CPU time that it has used since it owes an answer


_HANG_LIMITS = HangLimits()


class HangJudge:
    """Judges one process by looks that are `TICK` apart.

    All evidence is forgotten at a look that comes late: messages that came in the meantime must be read first.
    """

    def __init__(self, limits: HangLimits = _HANG_LIMITS, clock: Callable[[], float] = time.monotonic) -> None:
        self.late = False  # whether the last look was
        self._limits = limits
        self._clock = clock
        self._looked = clock()
        self.forget()

    def forget(self) -> None:
        """Drop all evidence."""
        self._stopped = self._idle = 0
        self._owed_at: float | None = None  # CPU time when the answer became due
        self._last: ProcessState | None = None

    def check(self, state: ProcessState | None, owes: bool) -> str:
        """Take a look. Returns why the process must be taken to hang, "" if it need not be.

        `state` None proves nothing: the end of a process is heard of elsewhere. `owes`: the process owes an answer,
        and already did at the look before.
        """
        before, self._looked = self._looked, self._clock()
        self.late = self._looked - before > LATE
        if self.late:
            self.forget()
        if state is None:
            return ""
        owes = owes and not self.late
        idle = not (state.stopped or state.runnable or state.worked_since(self._last))
        self._stopped = self._stopped + 1 if state.stopped else 0
        self._idle = self._idle + 1 if owes and idle else 0
        if not owes:
            self._owed_at = None
        elif self._owed_at is None:
            self._owed_at = state.cpu
        self._last = state
        return self._verdict(state.cpu)

    def _verdict(self, cpu: float) -> str:
        if self._stopped >= self._limits.stopped_looks:
            return "it was stopped"
        if self._idle >= self._limits.idle_looks:
            return "it does nothing and does not answer"
        if self._owed_at is not None and cpu - self._owed_at >= self._limits.cpu_seconds:
            return f"it has computed for {cpu - self._owed_at:.0f} s and does not answer"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceLimits:
    """Seconds without a heartbeat after which a process counts as lost."""

    stopped: float = 3.0  # if it is stopped
    asleep: float = 9.0  # if it has neither computed nor read from a disk meanwhile
    working: float = 30.0  # if it has, and got no turn to send a heartbeat


_SILENCE_LIMITS = SilenceLimits()


class HeartbeatMonitor:
    """Counts the silence of one process between its heartbeats, which are its messages of any kind.

    Silence is counted in ticks of the event loop that reads the messages. A loop that stood still, because it was busy
    or the machine was paused, has counted one tick, however long that took, and reads what has come before the next. So
    no process is lost while a message of it is unread.
    """

    def __init__(self, limits: SilenceLimits = _SILENCE_LIMITS, read: ReadState = read_state) -> None:
        self._read = read
        self._pid: int | None = None
        self.expect(limits)

    def watch(self, pid: int) -> None:
        """Have the state of process `pid` tell a stopped or working process from one that is asleep."""
        self._pid = pid

    def expect(self, limits: SilenceLimits) -> None:
        """Begin anew with other limits."""
        self._limits = limits
        self.beat()

    def beat(self) -> None:
        """A heartbeat has come."""
        self._ticks = 0
        self._seen: ProcessState | None = None  # when the silence was noticed, and whenever work was seen since
        self._worked = 0  # tick of that

    def tick(self) -> str:
        """To be called every `TICK`. Returns what to say of a process that is lost, "" while it is not."""
        self._ticks += 1
        silent, limits = self._ticks * TICK, self._limits
        if silent < min(limits.stopped, limits.asleep):
            return ""
        state = None if self._pid is None else self._read(self._pid, False)
        if state and state.stopped and silent >= limits.stopped:
            return f"was stopped, and silent for {silent:g} s"
        if state and state.worked_since(self._seen):
            self._seen, self._worked = state, self._ticks
        idle = (self._ticks - self._worked) * TICK
        if silent >= limits.working or (silent >= limits.asleep and idle >= limits.asleep - limits.stopped):
            return f"was silent for {silent:g} s"
        return ""
