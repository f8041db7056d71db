"""Log lines of all processes in one form: text for people or JSON for programs, on standard error.

What tenants write never gets into a line. Errors are logged with their type and where they were raised, since their
messages may quote a prompt; and libraries, whose lines nobody here has read, log warnings and above only. Repeated
lines are counted instead of written (`log_rate_limit`).
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from types import TracebackType
from typing import Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

from faasmoe.util.log_rate_limit import LogRateLimit

Format = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]

VARIABLE = "FAASMOE_LOG"  # how a process tells those that it starts: FORMAT:LEVEL
PLAIN = "text:warning"
_MOST_FRAMES = 20  # of an error, the innermost
_MOST_CAUSES = 5
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "role"}

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure(role: str, form: Format, level: Level) -> None:
    """Set this process's logging, and that of processes it starts. `role` is what the process is called in lines."""
    os.environ[VARIABLE] = f"{form}:{level}"
    inherit(role)


def inherit(role: str) -> None:
    """Set this process's logging as the one that started it has it."""
    form, _, level = os.environ.get(VARIABLE, PLAIN).partition(":")
    handler = _Limited(role)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("faasmoe").setLevel(level.upper())


def rename(role: str) -> None:
    """Have log lines of this process, which was forked, name it `role`, and count its own repeated lines.

    Nothing else changes: setting a level writes to every logger that there is, and so to pages that the process shares.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Limited):
            handler.begin(role)


def are_json() -> bool:
    """Whether this process writes log lines as JSON."""
    return any(isinstance(handler.formatter, _Json) for handler in logging.getLogger().handlers)


class _Limited(logging.StreamHandler[TextIO]):
    """Writes to standard error what a limit lets through."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.begin(role)

    def begin(self, role: str) -> None:
        """Write for this process, which lines call `role`."""
        self._role = role
        self._limit: LogRateLimit | None = None  # made when a line is written: most forked processes write none
        self._process = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`, which calls it with its lock."""
        if self._limit is None:
            self._limit = LogRateLimit()
        for each in self._limit.take(record):
            self._write(each)

    def _write(self, record: logging.LogRecord) -> None:
        record.role = self._role
        super().emit(record)

    def close(self) -> None:
        """Write what was left out, unless it is for the process that has forked this one to say."""
        if os.getpid() == self._process:
            self.acquire()
            try:
                if self._limit is not None:
                    for each in self._limit.rest():
                        self._write(each)
            finally:
                self.release()
        super().close()


class _Common(logging.Formatter):
    """Times in UTC as ISO 8601 has them, errors without messages."""

    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    @staticmethod
    def converter(seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 - logging's name
        return _where(ei[1])


class _Text(_Common):
    """`TIME LEVEL ROLE LOGGER: MESSAGE key=value ...`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(role)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        more = {key: value for key, value in vars(record).items() if key not in _USUAL and value not in (None, "")}
        return " ".join([super().formatMessage(record), *(f"{key}={value}" for key, value in more.items())])


class _Json(_Common, JsonFormatter):
    """One object a line, with what was given as `extra` among its members."""

    def __init__(self) -> None:
        JsonFormatter.__init__(
            self,
            "%(asctime)s %(levelname)s %(name)s %(message)s %(role)s",
            rename_fields={
                "asctime": "time",
                "levelname": "level",
                "name": "logger",
                "role": "process",
                "exc_info": "raised",
            },
        )


def _where(error: BaseException | None) -> str:
    """Types and places of an error and its causes, without their messages."""
    parts: list[str] = []
    while error is not None and len(parts) < _MOST_CAUSES:
        frames = traceback.format_tb(error.__traceback__, limit=-_MOST_FRAMES)
        parts.append(f"{''.join(frames)}{type(error).__name__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\ncaused by\n".join(parts)
