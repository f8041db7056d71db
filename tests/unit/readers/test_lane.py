"""A lane whose readers are played: no process, no socket, no time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from faasmoe.api.parsed_request import ParsedRequest
from faasmoe.errors import EngineBusy, EngineStopped, ProcessLost, RequestError
from faasmoe.protocol.request import SamplingParams
from faasmoe.readers.lane import Lane, asked_by, cpu_seconds
from faasmoe.readers.messages import Answer, Done, Job, Refused
from faasmoe.readers.queue import MOST_EACH
from faasmoe.util.watchdog import Overdue, Stalled

ASKED = ParsedRequest(prompts=((1,),), params=SamplingParams(), own=None)
DONE = Done(ASKED, last=False)


class PlayedReader:
    """Answers with the next of `answers`: what is raised is raised, None waits for ever."""

    pid = 1

    def __init__(self, number: int, answers: list[Any]) -> None:
        self.number = number
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answers = answers

    def hang_up(self) -> None:
        pass

    async def ask(self, job: bytes) -> Answer:
        answer = self._answers.pop(0)
        if answer is None:
            return await asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            raise answer
        return answer


class PlayedLauncher:
    def __init__(self, answers: Sequence[Any], statuses: Sequence[int | None] = (), refusals: int = 0) -> None:
        self._answers = list(answers)
        self._statuses = list(statuses)
        self._refusals = refusals
        self.forked: list[int] = []
        self.left: list[int] = []

    async def fork(self, niceness: int) -> PlayedReader:
        if self._refusals:
            self._refusals -= 1
            raise ProcessLost("no process")
        self.forked.append(niceness)
        self.latest = PlayedReader(len(self.forked), self._answers)
        return self.latest

    async def end(self, reader: PlayedReader) -> int | None:
        return self._statuses.pop(0)

    async def leave(self, reader: PlayedReader) -> None:
        self.left.append(reader.number)


async def at_once(work: Any, pid: Callable[[], int], seconds: float) -> Answer:
    return await work


def run(launcher: PlayedLauncher, *tenants: str) -> tuple[list[Any], list[float], Lane]:
    """What each of these requests gets, the pauses that the lane made, and the lane."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def all_of_it() -> tuple[list[Any], Lane]:
        lane = Lane(launcher, 3, sleep, at_once)  # type: ignore[arg-type]
        asks: list[Awaitable[Answer]] = [lane.read(tenant, Job("chat", b"{}", 1.0)) for tenant in tenants]
        running = asyncio.create_task(lane.run())
        try:
            return await asyncio.wait_for(asyncio.gather(*asks, return_exceptions=True), 30), lane
        finally:
            running.cancel()

    answers, lane = asyncio.run(all_of_it())
    return answers, pauses, lane


def test_a_reader_answers_one_after_the_other() -> None:
    launcher = PlayedLauncher([DONE, DONE])
    assert run(launcher, "a", "b")[0] == [DONE, DONE]
    assert launcher.forked == [3]


def test_a_reader_that_has_grown_is_replaced() -> None:
    launcher = PlayedLauncher([Done(ASKED, last=True), DONE])
    run(launcher, "a", "b")
    assert (launcher.left, len(launcher.forked)) == ([1], 2)


@pytest.mark.parametrize("status", [-signal.SIGKILL, -signal.SIGTERM, 1, 0, None])
def test_a_body_whose_reader_was_killed_is_read_again(status: int | None) -> None:
    launcher = PlayedLauncher([ProcessLost("closed"), DONE], [status])
    answers, _, lane = run(launcher, "a")
    assert (answers, lane.lost, len(launcher.forked)) == ([DONE], 1, 2)


def test_a_body_whose_reader_hangs_is_read_again() -> None:
    launcher = PlayedLauncher([Stalled("it was stopped"), DONE], [-signal.SIGKILL])
    assert run(launcher, "a")[0] == [DONE]


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGPROF, "too long"), (signal.SIGABRT, "too much memory"), (signal.SIGSEGV, "cannot be read")],
)
def test_what_kills_a_reader_costs_its_own_request_alone(number: int, message: str) -> None:
    launcher = PlayedLauncher([ProcessLost("closed"), DONE], [-number])
    (refused, done), _, _ = run(launcher, "a", "b")
    assert isinstance(refused, RequestError)
    assert message in str(refused)
    assert done == DONE


def test_a_reader_that_ends_while_it_idles_is_replaced_at_once() -> None:
    launcher = PlayedLauncher([DONE])

    async def all_of_it() -> None:
        lane = Lane(launcher, 3)  # type: ignore[arg-type]
        running = asyncio.create_task(lane.run())
        for _ in range(10):
            await asyncio.sleep(0)
        launcher.latest.ended.set_result(-9)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (len(launcher.forked), lane.lost) == (2, 1)
        assert await lane.read("a", Job("chat", b"{}", 1.0)) == DONE
        running.cancel()

    asyncio.run(all_of_it())


def test_a_body_that_takes_too_long_is_not_tried_again() -> None:
    launcher = PlayedLauncher([Overdue("not done"), DONE], [-signal.SIGKILL])
    (stopped, done), _, lane = run(launcher, "a", "b")
    assert isinstance(stopped, EngineStopped)
    assert (done, lane.lost) == (DONE, 1)


def test_after_three_readers_a_request_may_be_tried_again_later() -> None:
    launcher = PlayedLauncher([*[ProcessLost("closed")] * 3, DONE], [None] * 3)
    (stopped, done), _, _ = run(launcher, "a", "b")
    assert isinstance(stopped, EngineStopped)
    assert done == DONE


def test_no_failure_to_fork_is_the_last() -> None:
    answers, pauses, _ = run(PlayedLauncher([DONE], refusals=12), "a")
    assert answers == [DONE]
    assert len(pauses) == 12
    assert pauses[0] < 0.1
    assert 1.0 <= pauses[-1] <= 3.0


def test_too_many_of_one_tenant_are_refused() -> None:
    answers, _, _ = run(PlayedLauncher([DONE] * 100), *["a"] * (MOST_EACH + 2), "b")
    refused = [answer for answer in answers if isinstance(answer, EngineBusy)]
    assert len(refused) == 2
    assert answers[-1] == DONE


def test_an_answer_is_what_was_asked_or_an_error() -> None:
    assert asked_by(DONE).asked == ASKED
    with pytest.raises(RequestError, match="no such") as caught:
        asked_by(Refused("no such", "prompt", "code", last=False))
    assert (caught.value.param, caught.value.code) == ("prompt", "code")


def test_time_is_given_by_size() -> None:
    assert cpu_seconds(100) < 2.1
    assert 10 < cpu_seconds(4 << 20) < 20
