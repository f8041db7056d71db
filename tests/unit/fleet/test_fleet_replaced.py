"""Orchestrators that leave, because they had better run elsewhere."""

from __future__ import annotations

import pytest

from faasmoe.errors import EngineStopped
from tests.unit.fleet.fleets import Played, play, turn


@pytest.mark.parametrize("strategy", ["shared", "private"])
def test_another_takes_the_next_request_and_running_ones_go_on(strategy: str) -> None:
    async def test(played: Played) -> None:
        await played.submit("a", "1")
        first = played.launcher.children[0]
        first.has_to_leave = True
        await played.look()
        assert not first.ended
        await played.submit("a", "2")
        second = played.launcher.children[1]
        assert len(played.launcher.children) == 2
        assert (first.link.taken, second.link.taken) == (["1"], ["2"])
        first.link.busy = False
        await played.look()
        assert (first.ended, second.ended) == (True, False)
        assert played.fleet.running == 1

    play(test, strategy, most=1)


def test_another_is_started_before_it_is_needed() -> None:
    async def test(played: Played) -> None:
        await played.submit("a", "1")
        first = played.launcher.children[0]
        first.link.busy = False
        first.has_to_leave = True
        for _ in range(2):
            await played.look()
        assert [child.ended for child in played.launcher.children] == [True, False]
        await played.look(after=60)
        assert played.launcher.alive() == 0  # nobody has needed it

    play(test, "shared")


def test_its_loss_fails_what_runs_and_starts_no_third() -> None:
    async def test(played: Played) -> None:
        await played.submit("a", "1")
        first = played.launcher.children[0]
        first.has_to_leave = True
        await played.look()
        first.dies.set()
        await turn()
        assert first.link.reason == "killed"
        first.link.busy = False
        await played.look()
        assert played.launcher.alive() == 1
        assert len(played.launcher.children) == 2

    play(test, "shared")


def test_it_takes_no_requests_when_the_server_ends() -> None:
    async def test(played: Played) -> None:
        await played.submit("a", "1")
        played.launcher.children[0].has_to_leave = True
        await played.look()
        assert played.fleet.busy
        played.fleet.cut("it ends")
        assert played.launcher.children[0].link.reason == "it ends"
        with pytest.raises(EngineStopped, match="it ends"):
            await played.submit("a", "2")

    play(test, "shared")
