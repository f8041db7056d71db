"""Whether a process does anything: one that was stopped, or hangs, uses no processor time while it has work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.5
STILL = (
    6  # looks in a row without progress; counted, so that the seconds in which we were stopped ourselves are one
)


class Stalled(Exception):
    """A process does nothing."""


class Overdue(Exception):
    """A process has not done its work in time, though it works."""


def processor_time(pid: int) -> int | None:
    """Clock ticks that a process has run, None if there is none of this id."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[11]) + int(fields[12])
    return None


async def watched(
    work: Coroutine[None, None, T],
    pid: Callable[[], int | None],
    seconds: float,
    time_of: Callable[[int], int | None] = processor_time,
    look: float = LOOK_SECONDS,
) -> T:
    """What `work` returns, which waits for what the process `pid` does.

    Raises `Stalled` if that process uses no time while it is looked at `STILL` times, and `Overdue` after `seconds`.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    end = loop.time() + seconds
    seen: int | None = None
    still = 0
    try:
        while True:
            done, _ = await asyncio.wait([task], timeout=look)
            if done:
                return task.result()
            process = pid()
            now = None if process is None else time_of(process)
            still, seen = (still + 1 if now == seen else 0), now
            if still >= STILL:
                raise Stalled(f"no progress for {STILL * look:g} s")
            if loop.time() >= end:
                raise Overdue(f"not done within {seconds:g} s")
    finally:
        task.cancel()
