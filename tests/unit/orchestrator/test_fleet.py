"""The fleet with orchestrators that are played, and a clock that is set."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from faasmoe.errors import CheckpointError, EngineStopped, OptionError, ProcessLost
from faasmoe.orchestrator import fleet
from faasmoe.orchestrator.config import About, FleetOptions
from faasmoe.orchestrator.figures import Figures
from faasmoe.orchestrator.fleet import Fleet
from faasmoe.orchestrator.request import GenerationRequest

ABOUT = About("arch", 1, 2, 3, 40)


class Link:
    """Takes requests and is busy until it is told otherwise."""

    def __init__(self) -> None:
        self.busy = self.lost = False
        self.taken: list[str] = []
        self.reason = ""
        self.latest = Figures(running=1, invocations=1)

    async def submit(self, number: int, frame: bytes, ids: Sequence[str]) -> list[str]:
        self.busy = True
        self.taken += ids
        return list(ids)

    async def refresh(self) -> None:
        pass

    def fail(self, reason: str) -> None:
        self.lost, self.reason = True, reason

    def cut(self, reason: str) -> None:
        self.reason = reason


class Child:
    """An orchestrator that ends when it is told to, or dies."""

    def __init__(self) -> None:
        self.link = Link()
        self.dies = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.ended = False

    async def serve(self) -> str:
        await self.dies.wait()
        return "killed"

    async def end(self) -> str:
        await self.may_end.wait()
        self.ended = True
        return "status 0"


class Launcher:
    """Launches at once, unless it is held back or has an error to raise."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.running = False
        self.tries = 0
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.loaded = asyncio.Event()
        self.loaded.set()

    @property
    def loading(self) -> bool:
        return self.running and not self.loaded.is_set()

    async def ready(self) -> About:
        self.running = True
        self.tries += 1
        await self.loaded.wait()
        if self.error:
            raise self.error
        return ABOUT

    async def launch(self) -> Child:
        await self.ready()
        await self.open.wait()
        self.children.append(Child())
        return self.children[-1]

    def close(self) -> None:
        self.running = False
        for child in self.children:
            child.may_end.set()  # killed with what it was started with

    def alive(self) -> int:
        return sum(not child.ended for child in self.children)


class Played:
    """A fleet that looks at nobody by itself."""

    def __init__(self, options: FleetOptions, patience: float) -> None:
        self.now = 100.0
        self.launcher = Launcher()
        self.fleet = Fleet(self.launcher, options, lambda: self.now, patience)  # type: ignore[arg-type]

    async def submit(self, tenant: str, name: str = "r") -> list[str]:
        requests = [GenerationRequest(name, (1,), tenant=tenant)]
        return await self.fleet.submit(requests)  # type: ignore[return-value]

    async def look(self, after: float = 0) -> None:
        self.now += after
        self.fleet.look()
        await turn()


async def turn() -> None:
    """Let all tasks go on until they wait."""
    for _ in range(30):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def play(
    test: Callable[[Played], Awaitable[None]],
    strategy: str = "private",
    keep_alive: float = 60,
    most: int = 8,
    patience: float = 30,
) -> None:
    async def run() -> None:
        played = Played(FleetOptions(strategy, keep_alive, most), patience)  # type: ignore[arg-type]
        async with played.fleet:
            await played.fleet.ready()
            await test(played)
        assert not played.launcher.alive()
        assert not played.launcher.running

    asyncio.run(run())


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


def test_one_that_idles_is_stopped_and_started_again() -> None:
    async def test(played: Played) -> None:
        await played.submit("a")
        await played.submit("b")
        first, second = played.launcher.children
        await played.look(after=1000)  # both have a request
        first.link.busy = False
        await played.look()
        await played.look(after=59)
        assert played.fleet.running == 2
        await played.look(after=1)
        assert (first.ended, second.ended, played.fleet.running) == (True, False, 1)
        await played.submit("a")
        assert len(played.launcher.children) == 3

    play(test)


def test_a_request_ends_idleness() -> None:
    async def test(played: Played) -> None:
        await played.submit("a")
        (child,) = played.launcher.children
        child.link.busy = False
        await played.look()
        await played.look(after=59)
        await played.submit("a")
        child.link.busy = False
        await played.look(after=30)
        await played.look(after=59)
        assert not child.ended
        await played.look(after=1)
        assert child.ended

    play(test)


def test_what_they_are_started_with_goes_after_the_last_of_them() -> None:
    async def test(played: Played) -> None:
        await played.look(after=59)
        assert played.launcher.running
        await played.submit("a")
        await played.look(after=500)
        played.launcher.children[0].link.busy = False
        await played.look()
        await played.look(after=60)
        assert (played.fleet.running, played.launcher.running) == (0, True)
        await played.look()
        await played.look(after=59)
        assert played.launcher.running
        await played.look(after=1)
        assert not played.launcher.running
        assert played.fleet.state == "ok"  # a request starts all of it
        await played.submit("a")
        assert played.launcher.running

    play(test)


def test_with_an_endless_keep_alive_they_stay() -> None:
    async def test(played: Played) -> None:
        await played.submit("a")
        played.launcher.children[0].link.busy = False
        await played.look()
        await played.look(after=1e9)
        assert played.fleet.running == 1

    play(test, keep_alive=float("inf"))


def test_one_too_many_takes_the_place_of_the_one_that_idles_longest() -> None:
    async def test(played: Played) -> None:
        for tenant in "abc":
            await played.submit(tenant)
        a, b, c = played.launcher.children
        b.link.busy = False
        await played.look()
        a.link.busy = False
        await played.look(after=1)
        b.may_end.clear()
        coming = asyncio.create_task(played.submit("d"))
        await turn()
        assert played.launcher.children == [a, b, c]  # its place is not free before the process has gone
        await played.look()
        assert not a.ended  # one place is enough
        b.may_end.set()
        assert await coming == ["r"]
        assert (a.ended, b.ended, played.launcher.alive()) == (False, True, 3)

    play(test, most=3)


def test_where_none_idles_a_tenant_waits_its_turn() -> None:
    async def test(played: Played) -> None:
        await played.submit("a")
        waiting = [asyncio.create_task(played.submit(tenant)) for tenant in ("b", "b", "c")]
        await played.look(after=1000)
        assert played.launcher.alive() == 1
        played.launcher.children[0].link.busy = False
        await played.look()
        assert [task.done() for task in waiting] == [True, True, False]  # first come, first served
        played.launcher.children[1].link.busy = False
        await played.look()
        assert waiting[2].done()
        assert played.launcher.alive() == 1

    play(test, most=1)


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


def test_figures_are_sums_and_counts_outlive_orchestrators() -> None:
    async def test(played: Played) -> None:
        assert await played.fleet.figures() == Figures()
        await played.submit("a")
        await played.submit("b")
        assert await played.fleet.figures() == Figures(running=2, invocations=2)
        played.launcher.children[0].link.busy = False
        await played.look()
        await played.look(after=60)
        assert await played.fleet.figures() == Figures(running=1, invocations=2)
        played.launcher.children[1].dies.set()
        await turn()
        await played.submit("b")
        assert await played.fleet.figures() == Figures(running=1, invocations=3)

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


def test_looks_for_those_who_idle_go_on_after_one_has_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[float] = []

    async def test(played: Played) -> None:
        def broken() -> None:
            looks.append(1)
            raise OSError(24, "too many open files")

        monkeypatch.setattr(played.fleet, "look", broken)
        await until(lambda: len(looks) >= 3)

    play(test, keep_alive=0.01)
    assert caplog.text.count("cannot be looked for") == 1


def test_a_server_ends_although_its_orchestrators_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        played = Played(FleetOptions(), 30)
        async with played.fleet:
            await played.submit("a")
            played.launcher.children[0].may_end.clear()
            monkeypatch.setattr(fleet, "_END_SECONDS", 0.01)
        assert not played.launcher.running

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_alive": -1}, "--orchestrator-keep-alive -1: must be at least 0"),
        ({"keep_alive": float("nan")}, "--orchestrator-keep-alive nan"),
        ({"most": 0}, "--max-orchestrators 0: must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FleetOptions(**options)


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
