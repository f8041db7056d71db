from __future__ import annotations

import asyncio
from itertools import count

import pytest

from faasmoe.util.liveness import ProcessState
from faasmoe.util.watchdog import Overdue, Stalled, watched
from tests.unit.clocks import run

STOPPED = ProcessState(True, False, 1.0)
IDLE = ProcessState(False, False, 1.0)


async def never() -> int:
    return await asyncio.get_running_loop().create_future()


def test_what_is_done_is_returned_and_what_is_raised_is_raised() -> None:
    async def done() -> int:
        return 5

    async def failed() -> int:
        raise KeyError

    assert run(watched(done(), lambda: 1, 1)) == 5
    with pytest.raises(KeyError):
        run(watched(failed(), lambda: 1, 1))


@pytest.mark.parametrize(
    ("state", "looks", "cause"), [(STOPPED, 2, "it was stopped"), (IDLE, 7, "it does nothing")]
)
def test_work_of_a_process_that_hangs_has_stalled(state: ProcessState, looks: int, cause: str) -> None:
    seen = iter([state] * looks)
    with pytest.raises(Stalled, match=cause):
        run(watched(never(), lambda: 1, 60, read=lambda *_: next(seen)))
    assert next(seen, None) is None


@pytest.mark.parametrize("pid", [None, 1])
def test_work_of_one_that_does_not_hang_has_until_its_time_is_over(pid: int | None) -> None:
    looks = count()
    with pytest.raises(Overdue, match="not done within 60 s"):
        run(watched(never(), lambda: pid, 60, read=lambda *_: ProcessState(False, False, float(next(looks)))))
