"""Who watches over an orchestrator goes on, whatever happens to it."""

from __future__ import annotations

import asyncio

import pytest

from faasmoe.errors import CheckpointError, EngineStopped, ProcessLost
from tests.unit.fleet.fleets import Played, play, turn, until


def test_the_death_of_one_is_nobody_elses_matter() -> None:
    async def test(played: Played) -> None:
        await played.submit("a", "1")
        await played.submit("b", "2")
        first, second = played.launcher.children
        played.launcher.open.clear()
        first.dies.set()
        waiting = asyncio.create_task(played.submit("a", "3"))
        await turn()
        assert (first.link.reason, second.link.reason) == ("killed", "")
        assert (played.fleet.running, played.fleet.state) == (1, "ok")
        await played.submit("b", "4")
        second.dies.set()
        await turn()
        assert played.fleet.state == "starting"  # whoever comes has to wait for a successor
        played.launcher.open.set()
        assert await waiting == ["3"]
        await played.submit("b", "5")
        assert sorted(child.link.taken for child in played.launcher.children[2:]) == [["3"], ["5"]]
        assert (played.fleet.state, played.fleet.starts.again) == ("ok", 2)

    play(test)


def test_nobody_waits_for_a_turn_for_ever() -> None:
    async def test(played: Played) -> None:
        await played.submit("a")
        with pytest.raises(EngineStopped, match="busy with other tenants; try again"):
            await played.submit("b")
        await played.look()
        played.launcher.children[0].link.busy = False
        await played.look()
        assert len(played.launcher.children) == 1  # nobody is left who wants one
        assert await played.submit("b") == ["r"]

    play(test, most=1, patience=0.01)


def test_one_that_cannot_start_is_tried_again_while_somebody_waits(caplog: pytest.LogCaptureFixture) -> None:
    async def test(played: Played) -> None:
        played.launcher.error = CheckpointError("gone")
        with pytest.raises(EngineStopped, match="is starting; try again"):
            await played.submit("a")
        assert played.fleet.state == "starting"
        await played.look()
        await played.look(after=60)
        assert played.fleet.state == "ok"  # nobody wants it
        played.launcher.error = None
        assert await played.submit("a") == ["r"]

    play(test, patience=0.01)
    assert "did not start, trying again in 0.1 s: gone" in caplog.text


@pytest.mark.parametrize(
    "error", [OSError(11, "no more processes"), ValueError("a defect"), ProcessLost("killed")]
)
def test_nothing_ends_the_watch_over_an_orchestrator(error: Exception) -> None:
    async def test(played: Played) -> None:
        await played.submit("a", "1")
        played.launcher.error = error
        played.launcher.children[0].dies.set()
        waiting = asyncio.create_task(played.submit("a", "2"))
        await turn()
        assert played.fleet.state == "starting"
        tries = played.launcher.tries
        await until(lambda: played.launcher.tries >= tries + 2)
        played.launcher.error = None
        assert await waiting == ["2"]
        assert played.fleet.state == "ok"

    play(test)
