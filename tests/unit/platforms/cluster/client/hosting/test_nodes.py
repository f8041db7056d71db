"""Which node gets the next orchestrator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.client.hosting import nodes
from faasmoe.platforms.cluster.client.hosting.nodes import ClusterOrchestratorNodes
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.hosting_messages import HostingReport, HostingState, PrepareOrchestrators
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
    """An orchestrator that starts, unless its node is one of `broken`, or this machine cannot."""

    broken: ClassVar[set[str]] = set()
    unable: ClassVar[set[str]] = set()

    def __init__(
        self, link: Link, leaves: Callable[[], bool], ended: Callable[[bool], object], clock: Clock
    ) -> None:
        if link.name in self.broken:
            raise Lost("no memory")
        if link.name in self.unable:
            raise OSError("Too many open files")
        self.node, self.leaves, self.end = link.name, leaves, ended


def report(available: int = 1, slots: int = 1, state: HostingState = "ready") -> HostingReport:
    return HostingReport(state=state, slots=slots, running=0, available=available, request=b"")


@contextmanager
def played(
    monkeypatch: pytest.MonkeyPatch, reports: dict[str, HostingReport], clock: Clock | None = None
) -> Iterator[tuple[ClusterOrchestratorNodes, Membership]]:
    monkeypatch.setattr(nodes, "NodeOrchestrator", Played)
    monkeypatch.setattr(Played, "broken", set())
    monkeypatch.setattr(Played, "unable", set())
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
        clock.now += nodes._FIRST_PAUSE
        Played.broken.clear()
        second = made.start()
        assert second
        assert second.node == "a"
        second.end(True)  # type: ignore[attr-defined]
        third = made.start()
        assert third
        assert third.node == "b"
        assert not made.has_room
        clock.now += nodes._FIRST_PAUSE
        assert not made.has_room  # it has failed for the second time
        clock.now += nodes._FIRST_PAUSE
        assert made.has_room


def test_one_that_goes_on_failing_is_spared_for_longer_until_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def spared() -> float:
        """Seconds for which the node gets none."""
        begun = clock.now
        while not made.has_room:
            clock.now += 1
        return clock.now - begun

    def start() -> Callable[[bool], None]:
        got = made.start()
        assert got
        return got.end  # type: ignore[attr-defined,no-any-return]

    with played(monkeypatch, {"a": report()}, clock) as (made, _):
        pauses = []
        for _ in range(8):
            start()(True)
            pauses.append(spared())
        assert pauses[:6] == sorted(pauses[:6])  # before the longest
        assert nodes._FIRST_PAUSE / 2 <= pauses[0] <= nodes._FIRST_PAUSE
        assert nodes._LONGEST_PAUSE / 2 <= pauses[-1] <= nodes._LONGEST_PAUSE + 1
        start()(False)
        assert spared() == 0
        start()(True)
        assert spared() <= nodes._FIRST_PAUSE


def test_a_node_is_not_to_blame_for_what_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    with played(monkeypatch, {"a": report()}) as (made, _):
        Played.unable.add("a")
        with pytest.raises(OSError, match="Too many"):
            made.start()
        Played.unable.clear()
        assert made.start()


def test_what_cannot_be_prepared_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its thread goes on, whatever it meets."""
    tries: list[bytes] = []
    errors: list[Exception] = [PlatformError("nodes", "(all)", "cannot be read"), ValueError("a defect")]
    prepared = threading.Event()

    def prepare(self: object, start: bytes, dense: FunctionSpec) -> PrepareOrchestrators:
        tries.append(start)
        if errors:
            raise errors.pop(0)
        prepared.set()
        return PrepareOrchestrators(start=start, content=FunctionContent(b"", ()))

    monkeypatch.setattr(nodes, "_PERIOD", 0.01)
    monkeypatch.setattr(nodes, "_PREPARE_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(ClusterOrchestratorNodes, "_prepared", prepare)
    membership = Membership()
    with ClusterOrchestratorNodes(membership, frozenset(), "p", lambda *_: (b"", b"")) as made:  # type: ignore[arg-type]
        made.offer(b"s", FunctionSpec("dense part", "", Path("/a")))
        assert prepared.wait(10)
    assert tries == [b"s"] * 3
    assert "no orchestrators start on nodes, trying again" in caplog.text
    assert "ValueError: a defect" in caplog.text


def test_an_orchestrator_leaves_when_its_node_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with played(monkeypatch, {"a": report()}) as (made, membership):
        got = made.start()
        assert got
        assert not got.leaves()  # type: ignore[operator]
        membership.there.clear()
        assert got.leaves()  # type: ignore[operator]
