from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from faasmoe.readers.progress import STILL, Overdue, Stalled, processor_time, watched


async def never() -> int:
    return await asyncio.get_running_loop().create_future()


def times(values: Iterator[int | None]) -> Callable[[int], int | None]:
    return lambda _: next(values)


def test_what_is_done_is_returned_and_what_is_raised_is_raised() -> None:
    async def done() -> int:
        return 5

    async def failed() -> int:
        raise KeyError

    assert asyncio.run(watched(done(), lambda: 1, 1)) == 5
    with pytest.raises(KeyError):
        asyncio.run(watched(failed(), lambda: 1, 1))


def test_a_process_that_uses_no_time_has_stalled() -> None:
    seen: list[int] = []

    def still(_: int) -> int:
        seen.append(1)
        return 7

    with pytest.raises(Stalled, match="no progress"):
        asyncio.run(watched(never(), lambda: 1, 60, still, look=0.001))
    assert len(seen) == STILL + 1


def test_one_that_works_has_until_its_time_is_over() -> None:
    counted = iter(range(10**9))
    with pytest.raises(Overdue, match=r"not done within 0\.05 s"):
        asyncio.run(watched(never(), lambda: 1, 0.05, times(counted), look=0.001))
    assert next(counted) > STILL


def test_the_time_of_a_process_is_read() -> None:
    assert (processor_time(os.getpid()) or 0) > 0
    assert processor_time(2**22 + 1) is None
