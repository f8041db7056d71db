"""SIGINT and SIGTERM: whatever the command has started is stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)


def unwind() -> None:
    """From now on either raises `SystemExit`, also where it was ignored: shells have it so in the background."""
    for number in ENDING:
        signal.signal(number, _unwind)


def _unwind(number: int, _: object) -> None:
    sys.exit(128 + number)


class EndedBySignals:
    """Runs a coroutine that the first signal cancels, unless it says what else a signal is to do.

    Signals are a matter of its loop: none raises where an error would be swallowed, and none disturbs its cleaning up.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._end: Callable[[int], None] | None = None

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Raises `SystemExit` if a signal has cancelled `main`."""
        try:
            asyncio.run(self._watch(main))
        except asyncio.CancelledError:
            if self._first is None:
                raise
            sys.exit(128 + self._first)

    @contextmanager
    def by(self, end: Callable[[int], None]) -> Iterator[None]:
        """In here signals cancel nothing; `end` is called with the number of each."""
        self._end = end
        try:
            yield
        finally:
            self._end = None

    async def _watch(self, main: Coroutine[Any, Any, None]) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.create_task(main)
        for number in ENDING:
            loop.add_signal_handler(number, self._heed, number, task)
        await task

    def _heed(self, number: int, task: asyncio.Task[None]) -> None:
        first = self._first is None
        self._first = self._first or number
        if self._end is not None:
            self._end(number)
        elif first:
            task.cancel()
