"""A replica's states, with processes that are played and a clock that its pauses move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from faasmoe.errors import CheckpointChanged, CheckpointError, EngineStopped
from faasmoe.fleet.replica import PAUSES, OrchestratorReplica
from faasmoe.protocol.request import GenerationRequest
from tests.unit.fleet.fleets import Child, turn

REQUESTS = [GenerationRequest("r", (1,))]


class Played:
    """A replica; `errors` are raised by its next starts, and a pause waits for `wake` and takes no other time."""

    def __init__(self, errors: list[Exception], turns: int = 1) -> None:
        self.now = 100.0
        self.errors = errors
        self.processes: list[Child] = []
        self.pauses: list[float] = []
        self.starts: list[bool] = []
        self.wake = asyncio.Event()
        self.turns = asyncio.Semaphore(turns)
        self.replica = OrchestratorReplica(
            self.launch,  # type: ignore[arg-type]
            self.turns,
            on_started=lambda _, again: self.starts.append(again),
            clock=lambda: self.now,
            sleep=self.pause,
        )

    async def launch(self) -> Child:
        if self.errors:
            raise self.errors.pop(0)
        self.processes.append(Child())
        return self.processes[-1]

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.wake.clear()
        await self.wake.wait()
        self.now += seconds

    async def go_on(self) -> None:
        self.wake.set()
        await turn()

    async def die(self, after: float) -> None:
        self.now += after
        self.processes[-1].dies.set()
        await turn()


def play(test: Callable[[Played], Awaitable[None]], *errors: Exception, turns: int = 1) -> None:
    async def run() -> None:
        played = Played(list(errors), turns)
        played.replica.start()
        await turn()
        await test(played)
        await played.replica.close("the end")
        assert played.replica.state == "stopped"
        assert all(process.ended for process in played.processes)
        assert not played.turns.locked() or not turns  # its turn was given back

    asyncio.run(run())


def test_it_starts_and_takes_requests() -> None:
    async def test(played: Played) -> None:
        assert (played.replica.state, played.replica.lost, played.starts) == ("ok", False, [False])
        assert await played.replica.submit(REQUESTS) == ["r"]

    play(test)


def test_starts_that_fail_are_tried_again_after_growing_pauses() -> None:
    async def test(played: Played) -> None:
        for tries in range(1, 9):
            assert (played.replica.state, played.replica.lost) == ("starting", True)
            assert len(played.pauses) == tries
            await played.go_on()
        assert (played.replica.state, played.replica.lost, played.starts) == ("ok", False, [False])
        assert played.pauses[0] < played.pauses[2] < played.pauses[4]
        assert max(played.pauses) <= PAUSES[1]

    play(test, *[CheckpointError("gone") for _ in range(8)])


def test_a_process_that_is_lost_while_it_serves_is_replaced_at_once() -> None:
    async def test(played: Played) -> None:
        await played.replica.submit(REQUESTS)
        first = played.processes[0]
        await played.die(after=5)
        assert (first.link.reason, first.ended) == ("killed", True)
        assert (played.replica.state, played.starts, played.pauses) == ("ok", [False, True], [])

    play(test)


def test_processes_that_die_within_a_second_are_replaced_after_growing_pauses() -> None:
    async def test(played: Played) -> None:
        for deaths in range(1, 6):
            await played.die(after=0.5)
            assert (played.replica.state, played.replica.lost, len(played.pauses)) == ("starting", True, deaths)
            await played.go_on()
            assert played.replica.state == "ok"
        assert played.pauses[0] < played.pauses[2] < played.pauses[4]

    play(test)


def test_a_changed_checkpoint_refuses_requests_until_a_process_starts() -> None:
    async def test(played: Played) -> None:
        with pytest.raises(EngineStopped, match="has changed"):
            await played.replica.submit(REQUESTS)
        assert played.replica.state == "starting"
        await played.go_on()
        assert await played.replica.submit(REQUESTS) == ["r"]

    play(test, CheckpointChanged("the checkpoint has changed"))


def test_it_waits_for_its_turn() -> None:
    async def test(played: Played) -> None:
        assert (played.replica.state, played.replica.has_turn, played.processes) == ("starting", False, [])
        assert "busy with other tenants" in played.replica.waits_for
        waiting = asyncio.create_task(played.replica.submit(REQUESTS))
        await turn()
        played.turns.release()
        assert await waiting == ["r"]  # type: ignore[comparison-overlap]
        assert played.replica.has_turn

    play(test, turns=0)


@pytest.mark.parametrize("state", ["queued", "pausing", "ok"])
@pytest.mark.parametrize("how", ["refuse", "close"])
def test_it_can_be_stopped_in_each_state(state: str, how: str) -> None:
    async def test(played: Played) -> None:
        waiting: Any = None
        if state != "ok":
            waiting = asyncio.create_task(played.replica.submit(REQUESTS))
            await turn()
        if how == "refuse":
            played.replica.refuse("shutting down")
            assert not any(process.link.lost for process in played.processes)  # running requests go on
        else:
            await played.replica.close("shutting down")
            played.turns = asyncio.Semaphore(1)  # it was given back; `play` closes once more
            played.replica.has_turn = False
        for refused in (waiting, played.replica.submit(REQUESTS)):
            if refused is not None:
                with pytest.raises(EngineStopped, match="shutting down"):
                    await refused

    errors = [CheckpointError("gone")] if state == "pausing" else []
    play(test, *errors, turns=0 if state == "queued" else 1)


def test_idle_seconds_count_from_the_first_look_and_end_with_a_request() -> None:
    async def test(played: Played) -> None:
        assert played.replica.idle_seconds() == 0
        played.now += 30
        assert played.replica.idle_seconds() == 30
        await played.replica.submit(REQUESTS)
        assert played.replica.idle_seconds() == 0
        played.processes[0].link.busy = False
        played.now += 30
        assert played.replica.idle_seconds() == 0

    play(test)
