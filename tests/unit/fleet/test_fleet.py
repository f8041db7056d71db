"""The fleet with orchestrators that are played, and a clock that is set."""

from __future__ import annotations

import asyncio

import pytest

from faasmoe.errors import CheckpointError, EngineStopped, ProcessLost
from faasmoe.fleet import fleet
from faasmoe.protocol.config import FleetOptions
from faasmoe.protocol.stats import EngineStats
from tests.unit.fleet.fleets import ABOUT, Played, play, turn


def test_shared_is_one_orchestrator_for_all_tenants_from_their_first_request_on() -> None:
    async def test(played: Played) -> None:
        assert (played.fleet.about, played.fleet.running, played.fleet.state) == (ABOUT, 0, "ok")
        assert await asyncio.gather(played.submit("a", "1"), played.submit("b", "2")) == [["1"], ["2"]]
        (child,) = played.launcher.children
        assert child.link.taken == ["1", "2"]
        assert played.fleet.running == 1

    play(test, "shared")


def test_private_is_one_for_each() -> None:
    async def test(played: Played) -> None:
        for tenant, name in (("a", "1"), ("b", "2"), ("a", "3")):
            await played.submit(tenant, name)
        assert [child.link.taken for child in played.launcher.children] == [["1", "3"], ["2"]]
        assert played.fleet.running == 2

    play(test)


def test_figures_are_sums_and_counts_outlive_orchestrators() -> None:
    async def test(played: Played) -> None:
        assert await played.fleet.stats() == EngineStats()
        await played.submit("a")
        await played.submit("b")
        assert await played.fleet.stats() == EngineStats(running=2, invocations=2)
        played.launcher.children[0].link.busy = False
        await played.look()
        await played.look(after=60)
        assert await played.fleet.stats() == EngineStats(running=1, invocations=2)
        played.launcher.children[1].dies.set()
        await turn()
        await played.submit("b")
        assert await played.fleet.stats() == EngineStats(running=1, invocations=3)

    play(test)


def test_a_server_that_ends_refuses_and_lets_run_what_runs() -> None:
    async def test(played: Played) -> None:
        await played.submit("a")
        played.launcher.open.clear()
        waiting = asyncio.create_task(played.submit("b"))
        await turn()
        played.fleet.refuse("shutting down")
        (child,) = played.launcher.children
        assert (played.fleet.state, child.link.lost) == ("stopped", False)
        for refused in (waiting, played.submit("a"), played.submit("new")):
            with pytest.raises(EngineStopped, match="shutting down"):
                await refused
        played.fleet.cut("time is up")
        assert child.link.reason == "time is up"

    play(test)


def test_all_that_runs_can_be_cut_off_and_nothing_is_taken_then() -> None:
    async def test(played: Played) -> None:
        await played.submit("a")
        await played.submit("b")
        played.fleet.cut("the end")
        assert [child.link.reason for child in played.launcher.children] == ["the end"] * 2
        assert not any(child.link.lost for child in played.launcher.children)
        assert played.fleet.state == "stopped"
        with pytest.raises(EngineStopped, match="the end"):
            await played.submit("a")

    play(test, "private")


def test_what_keeps_a_model_from_being_served_is_raised_and_nothing_is_left() -> None:
    async def test() -> None:
        played = Played(FleetOptions(), 30)
        played.launcher.error = CheckpointError("cut short")
        async with played.fleet as fleet:
            with pytest.raises(CheckpointError, match="cut short"):
                await fleet.ready()
            assert fleet.state == "stopped"
            with pytest.raises(EngineStopped, match="the server's log says why"):
                await played.submit("a")
        assert not played.launcher.running

    asyncio.run(test())


def test_while_the_model_is_loaded_it_is_starting_and_requests_wait() -> None:
    async def test() -> None:
        played = Played(FleetOptions(keep_alive=0), 30)
        played.launcher.loaded.clear()
        async with played.fleet as fleet:
            assert fleet.state == "starting"
            with pytest.raises(EngineStopped, match="is being loaded; try again"):
                _ = fleet.about
            impatient = asyncio.create_task(fleet.ready())
            waiting = asyncio.create_task(played.submit("a"))
            await played.look(after=1000)
            assert played.launcher.running  # nobody idles yet
            impatient.cancel()
            await asyncio.gather(impatient, return_exceptions=True)
            played.launcher.loaded.set()
            assert await fleet.ready() == fleet.about == ABOUT
            assert await waiting == ["r"]
            assert fleet.state == "ok"

    asyncio.run(test())


def test_a_server_that_ends_while_it_loads_says_so_to_who_waits() -> None:
    async def test() -> None:
        played = Played(FleetOptions(), 30)
        played.launcher.loaded.clear()
        async with played.fleet as fleet:
            ready = asyncio.create_task(fleet.ready())
            waiting = asyncio.create_task(played.submit("a"))
            await turn()
        for refused in (ready, waiting):
            with pytest.raises(EngineStopped, match="shutting down"):
                await refused
        assert fleet.state == "stopped"

    asyncio.run(test())


@pytest.mark.parametrize("lost", [ProcessLost("killed"), OSError(11, "no more processes")])
def test_a_template_that_is_lost_while_it_loads_is_tried_again(
    lost: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        played = Played(FleetOptions(), 30)
        played.launcher.error = lost
        async with played.fleet as fleet:
            await turn()
            assert fleet.state == "starting"
            played.launcher.error = None
            assert await fleet.ready() == ABOUT

    asyncio.run(test())
    assert "the model is not loaded, trying again in 0.1 s" in caplog.text


def test_a_server_ends_although_its_orchestrators_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        played = Played(FleetOptions(), 30)
        async with played.fleet:
            await played.submit("a")
            played.launcher.children[0].may_end.clear()
            monkeypatch.setattr(fleet, "_END_SECONDS", 0.01)
        assert not played.launcher.running

    asyncio.run(run())


def test_what_requests_wait_for_is_said() -> None:
    async def test(played: Played) -> None:
        assert played.fleet.awaited("a") == "the orchestrator takes the request"  # nobody waits
        played.launcher.loaded.clear()
        first = asyncio.create_task(played.submit("a"))
        await turn()
        assert played.fleet.awaited("a") == "the model is being loaded"
        played.launcher.open.clear()
        played.launcher.loaded.set()
        await turn()
        assert played.fleet.awaited("a") == "the orchestrator is starting"
        second = asyncio.create_task(played.submit("b"))
        await turn()
        assert played.fleet.awaited("b") == "as many orchestrators as may run are busy with other tenants"
        played.launcher.open.set()
        await first
        second.cancel()

    play(test, most=1)
