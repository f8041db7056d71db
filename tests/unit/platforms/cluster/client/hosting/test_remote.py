"""When an orchestrator on a node has failed, and what is left of one that could not start. Over socket pairs."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator

import pytest

from faasmoe.platforms.cluster.client.hosting import remote
from faasmoe.platforms.cluster.client.hosting.remote import NodeOrchestrator
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD
from faasmoe.platforms.cluster.protocol.hosting_messages import NoOrchestrator, OrchestratorRuns
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.clocks import Clock

_SECONDS = 10


class Link:
    """A link to a node that answers `answer`."""

    name = "a"

    def __init__(self, answer: OrchestratorRuns | NoOrchestrator) -> None:
        near, far = socket.socketpair()
        self.ours, self.node = Connection(near, MOST_HEAD), Connection(far, MOST_HEAD)
        self.answer = answer
        self.dropped = False

    def open(self, lane: str) -> Connection:
        assert lane == "orchestrator"
        self.node.send(self.answer, None)
        return self.ours

    def drop(self, connection: Connection) -> None:
        assert connection is self.ours
        connection.close()
        self.dropped = True


class Stage:
    """An orchestrator, and what was told of its end."""

    def __init__(self) -> None:
        self.link, self.clock = Link(OrchestratorRuns()), Clock()
        self.told: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.orchestrator = NodeOrchestrator(self.link, lambda: False, self.told.put, self.clock)  # type: ignore[arg-type]

    def has_failed(self) -> bool:
        failed = self.told.get(timeout=_SECONDS)
        assert "its connection to node a" in self.orchestrator.ended.result(_SECONDS)
        assert self.link.dropped
        assert self.told.empty()
        return failed


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    with made.orchestrator.socket, made.link.node.socket:  # type: ignore[union-attr]
        yield made


@pytest.mark.parametrize(("works", "seconds", "failed"), [(False, 60, True), (True, 5, True), (True, 20, False)])
def test_it_has_failed_if_it_ends_before_it_works_or_soon_after(
    stage: Stage, works: bool, seconds: float, failed: bool
) -> None:
    if works:
        stage.orchestrator.confirm()
    stage.clock.now += seconds
    stage.link.node.close()
    assert stage.has_failed() == failed


@pytest.mark.parametrize("works", [False, True])
def test_it_has_not_failed_if_it_was_ended_from_here(stage: Stage, works: bool) -> None:
    if works:
        stage.orchestrator.confirm()
    stage.orchestrator.socket.close()
    assert not stage.has_failed()


def test_it_has_failed_if_the_fleet_says_so(stage: Stage) -> None:
    stage.orchestrator.fail()
    assert stage.has_failed()


def test_a_defect_is_told_as_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise ValueError("a defect")

    monkeypatch.setattr(remote.Relay, "run", fail)
    stage = Stage()
    with stage.orchestrator.socket, stage.link.node.socket:  # type: ignore[union-attr]
        assert stage.has_failed()
    assert "the server's log tells more" in stage.orchestrator.ended.result()


def test_nothing_is_left_of_one_that_does_not_start() -> None:
    link = Link(NoOrchestrator("no memory"))
    with link.node.socket, pytest.raises(Lost, match="no memory"):
        NodeOrchestrator(link, lambda: False, pytest.fail)  # type: ignore[arg-type]
    assert link.dropped


@pytest.mark.parametrize("lacking", ["socket.socketpair", "threading.Thread.start"])
def test_nothing_is_left_if_this_machine_cannot(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    link = Link(OrchestratorRuns())

    def fail(*_: object) -> None:
        raise OSError("Too many open files")

    with monkeypatch.context() as patch, link.node.socket:
        patch.setattr(f"faasmoe.platforms.cluster.client.hosting.remote.{lacking}", fail)
        with pytest.raises(OSError, match="Too many"):
            NodeOrchestrator(link, lambda: False, pytest.fail)  # type: ignore[arg-type]
    assert link.dropped
