"""A rate limit on log lines: repeated ones are counted instead of written.

A fault that recurs at each attempt, or a flood of refused requests, would otherwise fill a disk.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

WINDOW = 10.0  # seconds
MOST_ALIKE = 10  # lines of one kind in a window: warnings, errors, and any line with a `reason`
MOST_SEVERE = 200  # warnings and errors of all kinds in a window
MOST_OTHERS = 5000  # lines below that in a window; a busy gateway writes one for each request
MOST_KINDS = 256  # that are remembered
_LONGEST_KIND = 160  # characters of a message that tell its kind
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+", re.IGNORECASE)

Kind = tuple[str, int, str, str]


@dataclass(kw_only=True)
class _Count:
    """Lines of one kind in the window that began at `began`."""

    began: float
    name: str
    level: int
    text: str
    written: int = 0
    left_out: int = 0

    def summary(self) -> logging.LogRecord:
        message = f"{self.text} (repeated {self.left_out} more times within {WINDOW:g} s)"
        return logging.LogRecord(self.name, self.level, "", 0, message, None, None)


class LogRateLimit:
    """Decides which records are written. A line after the window sums up those that were left out.

    The summary is written with the first record of any kind after the window, or by `rest`. There is no timer, since
    some processes must have no second thread. Not thread-safe: call it with the lock of a handler.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: OrderedDict[Kind, _Count] = OrderedDict()  # oldest first
        self._totals: dict[int, _Count] = {}  # by level: WARNING for severe ones, INFO for others

    def take(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """Return the records to write now: summaries that are due, and `record` unless it is over a limit."""
        now = self._clock()
        found = [count.summary() for count in self._over(now) if count.left_out]
        severe = record.levelno >= logging.WARNING
        total = self._total(logging.WARNING if severe else logging.INFO, now)
        if total.written >= (MOST_SEVERE if severe else MOST_OTHERS):
            total.left_out += 1
            return found
        if severe or getattr(record, "reason", None):
            kind = self._kind(record, now)
            if kind.written >= MOST_ALIKE:
                kind.left_out += 1
                return found
            kind.written += 1
        total.written += 1
        return [*found, record]

    def rest(self) -> list[logging.LogRecord]:
        """Return summaries of all records that were left out, and begin anew."""
        counts = [*self._kinds.values(), *self._totals.values()]
        self._kinds.clear()
        self._totals.clear()
        return [count.summary() for count in counts if count.left_out]

    def _kind(self, record: logging.LogRecord, now: float) -> _Count:
        kind = kind_of(record)
        count = self._kinds.get(kind)
        if count is None:
            count = self._kinds[kind] = _Count(
                began=now, name=record.name, level=record.levelno, text=_first_line(record)
            )
        return count

    def _total(self, level: int, now: float) -> _Count:
        count = self._totals.get(level)
        if count is None:
            count = self._totals[level] = _Count(
                began=now, name=__name__, level=level, text="lines of many kinds were left out"
            )
        return count

    def _over(self, now: float) -> Iterator[_Count]:
        """Forgets counts whose window is over, and the oldest kind if there are too many."""
        while self._kinds:
            kind, oldest = next(iter(self._kinds.items()))
            if now - oldest.began < WINDOW and len(self._kinds) <= MOST_KINDS:
                break
            del self._kinds[kind]
            yield oldest
        for level, count in list(self._totals.items()):
            if now - count.began >= WINDOW:
                del self._totals[level]
                yield count


def kind_of(record: logging.LogRecord) -> Kind:
    """Records are alike if logger, level, reason and message template are, numbers in the template apart."""
    template = str(record.msg)[:_LONGEST_KIND].partition("\n")[0]
    return record.name, record.levelno, _NUMBER.sub("#", template), str(getattr(record, "reason", ""))


def _first_line(record: logging.LogRecord) -> str:
    return record.getMessage().partition("\n")[0][:_LONGEST_KIND]
