"""A watchdog over a process while something waits for its work.

It is apart from `liveness`, since it needs asyncio, which processes that fork do without.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import TypeVar

from faasmoe.util.liveness import TICK, HangJudge, HangLimits, ReadState, read_state

_T = TypeVar("_T")

_LIMITS = HangLimits(idle_looks=6, cpu_seconds=math.inf)  # the work has a time limit anyway


class Stalled(Exception):
    """A process hangs while something waits for its work. The message says how."""


class Overdue(Exception):
    """A process has not done its work in time, though it does not hang."""


async def watched(
    work: Coroutine[None, None, _T],
    pid: Callable[[], int | None],
    seconds: float,
    read: ReadState = read_state,
) -> _T:
    """Return what `work` returns, which waits for what the process `pid` does.

    Raises `Stalled` if the process hangs meanwhile, and `Overdue` after `seconds`.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    end = loop.time() + seconds
    judge = HangJudge(_LIMITS, loop.time)
    try:
        while True:
            done, _ = await asyncio.wait([task], timeout=TICK)
            if done:
                return task.result()
            process = pid()
            if cause := judge.check(None if process is None else read(process, False), owes=True):
                raise Stalled(cause)
            if loop.time() >= end:
                raise Overdue(f"not done within {seconds:g} s")
    finally:
        task.cancel()
