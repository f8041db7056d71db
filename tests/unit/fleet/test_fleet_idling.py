"""Orchestrators that idle: they are stopped, make room for others, and come back."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.fleet.fleets import Played, play, turn, until


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


def test_it_is_busy_while_any_of_them_is() -> None:
    async def test(played: Played) -> None:
        assert not played.fleet.busy
        await played.submit("a")
        await played.submit("b")
        first, second = played.launcher.children
        first.link.busy = False
        assert played.fleet.busy
        second.link.busy = False
        assert not played.fleet.busy

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
