"""Memory of processes, as the kernel accounts it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self


def proportional_set_size(pid: int) -> int:
    """Bytes of memory that process `pid` stands for: its own pages, and its share of those it shares.

    0 if the process is gone. Source: proc(5), smaps_rollup, field Pss.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class PeakMemory:
    """Samples the summed proportional set size of groups of processes while it is entered.

    `groups` gives process ids by group name, asked anew for each sample. `peaks` has the largest sum of each.
    """

    def __init__(self, groups: Callable[[], dict[str, Iterable[int]]], interval: float = 1.0) -> None:
        self.peaks: dict[str, int] = {}
        self._groups = groups
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory meter", daemon=True)

    def sample(self) -> None:
        """Take one sample now."""
        for name, pids in self._groups().items():
            total = sum(map(proportional_set_size, pids))
            self.peaks[name] = max(total, self.peaks.get(name, 0))

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.sample()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()
