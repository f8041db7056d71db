"""SIGINT, SIGTERM and SIGHUP: whatever the command has started is stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from faasmoe.cli.server.last_resort import LastResort

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IMPATIENT = 3  # signals after which a command that cleans up is ended as it is


def unwind() -> None:
    """Have the first signal raise `SystemExit`, the second ignored while the process cleans up, and the third end it.

    SIGINT and SIGTERM do so also where they were ignored: shells have it so in the background. SIGHUP stays ignored
    for those who have asked for it, with nohup.
    """
    _install(_Unwinding())


def _install(handler: Callable[[int, object], None]) -> None:
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


class _Unwinding:
    """A signal handler."""

    def __init__(self) -> None:
        self._came = 0

    def __call__(self, number: int, _: object) -> None:
        self._came += 1
        if self._came == 1:
            sys.exit(128 + number)
        if self._came == _IMPATIENT:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


class EndedBySignals:
    """Runs a coroutine that the first signal cancels, unless it says what else a signal is to do.

    Signals are a matter of its loop: none raises where an error would be swallowed, and none disturbs its cleaning up.
    `resort` ends the process if it has not ended in time, whatever its loop does, and is told how long it may take.
    """

    def __init__(self, resort: LastResort) -> None:
        self._resort = resort
        self._first: int | None = None
        self._end: Callable[[], None] | None = None

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Raises `SystemExit` if a signal has cancelled `main`. Signals after the first are ignored from then on."""
        try:
            asyncio.run(self._watch(main))
        except asyncio.CancelledError:
            if self._first is None:
                raise
            sys.exit(self.status)

    @property
    def status(self) -> int:
        """The exit status of a process that a signal has ended."""
        return 128 + (self._first or 0)

    @contextmanager
    def by(self, end: Callable[[], None], grace: float) -> Iterator[None]:
        """In here signals cancel nothing: each calls `end`. What runs may take `grace` seconds after the first."""
        self._end, self._resort.grace = end, grace
        try:
            yield
        finally:
            self._end = None

    async def _watch(self, main: Coroutine[Any, Any, None]) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.create_task(main)

        def came(number: int, _: object) -> None:
            first, self._first = self._first is None, self._first or number
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._heed, first, task)

        _install(came)
        await task

    def _heed(self, first: bool, task: asyncio.Task[None]) -> None:
        if self._end is not None:
            self._end()
        elif first:
            task.cancel()
