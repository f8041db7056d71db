"""Which node gets the next orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from faasmoe.platforms.cluster.client.hosting import nodes
from faasmoe.platforms.cluster.client.hosting.nodes import ClusterOrchestratorNodes
from faasmoe.platforms.cluster.protocol.hosting_messages import HostingReport, HostingState
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.clocks import Clock


class Link:
    def __init__(self, name: str) -> None:
        self.name = name


class Membership:
    """All its nodes are ready."""

    def __init__(self, *names: str) -> None:
        self.there = [Link(name) for name in names]

    def ready(self) -> list[Link]:
        return self.there


class Played:
    """An orchestrator that starts, unless its node is one of `broken`."""

    broken: ClassVar[set[str]] = set()

    def __init__(self, link: Link, leaves: Callable[[], bool], ended: Callable[[], object]) -> None:
        if link.name in self.broken:
            raise Lost("no memory")
        self.node, self.leaves, self.end = link.name, leaves, ended


def report(available: int = 1, slots: int = 1, state: HostingState = "ready") -> HostingReport:
    return HostingReport(state=state, slots=slots, running=0, available=available, request=b"")


@contextmanager
def played(
    monkeypatch: pytest.MonkeyPatch, reports: dict[str, HostingReport], clock: Clock | None = None
) -> Iterator[tuple[ClusterOrchestratorNodes, Membership]]:
    monkeypatch.setattr(nodes, "NodeOrchestrator", Played)
    monkeypatch.setattr(Played, "broken", set())
    membership = Membership(*reports)
    made = ClusterOrchestratorNodes(membership, frozenset({"all"}), "p", lambda *_: (b"", b""), clock or Clock())  # type: ignore[arg-type]
    made._reports = reports
    with made:
        yield made, membership


def test_the_one_with_the_fewest_and_then_the_most_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = {"a": report(1, 2), "b": report(3, 2), "c": report(2, 1)}
    with played(monkeypatch, reports) as (made, _):
        got = [each.node if (each := made.start()) else None for _ in range(6)]
        assert got == ["b", "c", "a", "b", "a", None]
        assert not made.has_room


def test_one_that_has_not_loaded_the_model_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = {"a": report(state="loading"), "b": report(state="failed"), "c": report(slots=0)}
    with played(monkeypatch, reports) as (made, _):
        assert made.start() is None


def test_one_that_fails_is_spared_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    with played(monkeypatch, {"a": report(2), "b": report(1, slots=2)}, clock) as (made, _):
        Played.broken.add("a")
        first = made.start()
        assert first
        assert first.node == "b"
        clock.now += nodes._SPARED
        Played.broken.clear()
        second = made.start()
        assert second
        assert second.node == "a"
        second.end()  # type: ignore[attr-defined] # at once
        third = made.start()
        assert third
        assert third.node == "b"
        assert not made.has_room
        clock.now += nodes._SPARED
        assert made.has_room


def test_an_orchestrator_leaves_when_its_node_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with played(monkeypatch, {"a": report()}) as (made, membership):
        got = made.start()
        assert got
        assert not got.leaves()  # type: ignore[operator]
        membership.there.clear()
        assert got.leaves()  # type: ignore[operator]
