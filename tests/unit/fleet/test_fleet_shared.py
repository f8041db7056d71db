"""A fleet with several orchestrators for all tenants."""

from __future__ import annotations

import asyncio

from faasmoe.protocol.messages import StatsReport
from faasmoe.protocol.stats import EngineStats
from tests.unit.fleet.fleets import Played, play, turn

PROMPT = tuple(range(200))


def test_requests_go_to_the_orchestrator_with_the_prefix_or_the_least_load() -> None:
    async def test(played: Played) -> None:
        for tenant, name, prompt in (
            ("a", "1", PROMPT),
            ("b", "2", PROMPT),
            ("a", "3", PROMPT),
            ("b", "4", PROMPT),
        ):
            await played.submit(tenant, name, prompt)
        assert [child.link.taken for child in played.launcher.children] == [["1", "3"], ["2", "4"]]
        await played.submit("a", "5", (9, *PROMPT))
        played.launcher.children[0].link.busy = False
        await played.submit("b", "6", (8, *PROMPT))
        assert [child.link.taken for child in played.launcher.children] == [["1", "3", "5", "6"], ["2", "4"]]

    play(test, "shared", shared=2)


def test_others_are_told_what_one_has_served() -> None:
    async def test(played: Played) -> None:
        for name in "1234":
            await played.submit("a", name, (int(name),))
        first, second, third = (child.link for child in played.launcher.children)
        third.busy = False
        first.on_report(StatsReport(EngineStats(), {}, {"a": 7}))
        second.on_report(StatsReport(EngineStats(), {}, {}))
        assert (first.told, second.told, third.told) == ([], [{"a": 7}], [])

    play(test, "shared", shared=3)


def test_one_that_is_lost_costs_its_own_requests_alone() -> None:
    async def test(played: Played) -> None:
        await played.submit("a", "1", PROMPT)
        await played.submit("b", "2", PROMPT)
        played.launcher.children[0].dies.set()
        await turn()
        assert [child.link.reason for child in played.launcher.children[:2]] == ["killed", ""]
        await asyncio.sleep(1)  # virtual: another has started
        played.launcher.children[1].link.busy = False
        await played.submit("a", "3", PROMPT)
        assert played.launcher.children[2].link.taken == ["3"]

    play(test, "shared", shared=2)
