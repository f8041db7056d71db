"""The orchestrators of a node, over a host and weights that are played."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from faasmoe.errors import CheckpointError, EngineStopped
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.agent.hosting import NodeHosting
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity
from faasmoe.platforms.cluster.pool_file import PoolFile
from faasmoe.platforms.cluster.protocol import hosting_messages
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import ContentFile, ContentRange, FunctionContent
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD
from faasmoe.platforms.cluster.protocol.hosting_messages import (
    NoOrchestrator,
    OrchestratorRuns,
    PrepareOrchestrators,
    TellPool,
)
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry, Failure
from faasmoe.platforms.local.protocol.wire import Lost
from tests.waiting import wait_until

CONTENT = FunctionContent(
    b"[]\n", (ContentFile("/server/model/config.json", 5),), (ContentRange(0, 0, 5, bytes(32)),)
)
WANTED = PrepareOrchestrators(start=b"start", content=CONTENT)
TOLD = TellPool(platform="nodes", pool="p", nodes=(("127.0.0.1", 7000),))


class Child:
    def __init__(self) -> None:
        self.socket, self.far = socket.socketpair()
        self.pid = os.getpid()
        self.ended = threading.Event()

    def end(self) -> None:
        self.socket.close()
        self.far.close()
        self.ended.set()


class Host:
    slots = 1

    def __init__(self) -> None:
        self.loads: list[tuple[bytes, str, PoolFile]] = []
        self.error: Exception | None = None
        self.ready = False
        self.stalls = False  # the model takes long to load
        self.children: list[Child] = []

    def load(self, start: bytes, checkpoint: Path, pool: Path, is_wanted: Callable[[], bool]) -> None:
        if self.error:
            raise self.error
        self.is_wanted = is_wanted
        if self.stalls:
            assert wait_until(lambda: not is_wanted())
            raise EngineStopped("the model is no longer wanted")
        self.loads.append((start, (checkpoint / "config.json").read_text(), PoolFile.read(pool)))
        self.ready = True

    def fork(self) -> Child:
        if self.error:
            raise self.error
        self.children.append(Child())
        return self.children[-1]

    def unload(self) -> None:
        self.ready = False

    def close(self) -> None:
        self.ready = False


class Weights:
    """They come at once, unless they fail."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.failure: Failure | None = None
        self.forgotten = False

    def enter(self, entry: CatalogueEntry, spec: FunctionSpec) -> None:
        assert entry.hosts == ("a",)

    def get(self, names: Sequence[str], seconds: float) -> Failure | None:
        return self.failure

    def spec(self, name: str) -> FunctionSpec:
        return FunctionSpec(name, "", self.file, files=(FileRange(self.file, 0, 5),))

    def forget(self, names: Sequence[str]) -> None:
        self.forgotten = True


class Played:
    def __init__(self, hosting: NodeHosting, host: Host, weights: Weights) -> None:
        self.hosting, self.host, self.weights = hosting, host, weights

    def prepare(self) -> None:
        self.hosting._tell(TOLD, b"its certificate")
        self.hosting._want(WANTED)

    def becomes(self, state: str) -> bool:
        return wait_until(lambda: self.hosting.report().state == state)

    @contextmanager
    def orchestrator(self) -> Iterator[tuple[Connection, object]]:
        """The other end of a connection for an orchestrator, and the first message on it."""
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                self.hosting.run(Connection(theirs, MOST_HEAD))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        with ours:
            connection = Connection(ours, MOST_HEAD)
            yield connection, connection.received(hosting_messages.read_started, None)
        thread.join(10)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    (tmp_path / "here.json").write_text("model")
    host, weights = Host(), Weights(tmp_path / "here.json")
    with NodeHosting("a", host, ClusterIdentity(tmp_path / "identity"), weights) as hosting:  # type: ignore[arg-type]
        yield Played(hosting, host, weights)


def test_the_model_is_loaded_from_files_of_this_machine_under_their_names(played: Played) -> None:
    assert played.hosting.report().state == "idle"
    played.prepare()
    assert played.becomes("ready")
    ((start, text, pool),) = played.host.loads
    assert (start, text, pool.pool, pool.server is not None) == (b"start", "model", "p", True)


def test_a_template_that_has_ended_is_started_again(played: Played) -> None:
    played.prepare()
    assert played.becomes("ready")
    played.host.ready = False
    assert wait_until(lambda: len(played.host.loads) == 2)


def test_without_its_pool_the_model_goes(played: Played) -> None:
    played.prepare()
    assert played.becomes("ready")
    played.hosting.clear()
    assert wait_until(lambda: played.weights.forgotten and not played.host.ready)
    assert played.hosting.report().state == "idle"


def test_a_failure_is_told(played: Played) -> None:
    played.host.error = CheckpointError("it is damaged")
    played.prepare()
    assert played.becomes("failed")
    assert played.hosting.report().cause == "it is damaged"


def test_weights_that_cannot_be_had_are_told(played: Played) -> None:
    played.weights.failure = Failure(kind="weights", cause="the disk is full", error="failed")
    played.prepare()
    assert played.becomes("failed")
    assert "the disk is full" in played.hosting.report().cause


def test_where_the_pool_is_fails_and_mends_apart_from_the_model(played: Played) -> None:
    played.prepare()
    assert played.becomes("ready")
    wrong = msgspec.structs.replace(TOLD, certificate=b"none", authority=b"none")
    played.hosting._tell(wrong, b"its certificate")
    report = played.hosting.report()
    assert (report.state, report.cause) == ("failed", report.untold)
    assert "no certificate" in report.untold
    played.hosting._tell(TOLD, b"its certificate")
    report = played.hosting.report()
    assert (report.state, report.cause, report.untold, len(played.host.loads)) == ("ready", "", "", 1)


def test_a_model_that_fails_is_no_reason_to_be_told_again_where_the_pool_is(played: Played) -> None:
    played.host.error = CheckpointError("it is damaged")
    played.prepare()
    assert played.becomes("failed")
    played.hosting._tell(TOLD, b"its certificate")
    report = played.hosting.report()
    assert (report.state, report.cause, report.untold) == ("failed", "it is damaged", "")


def test_a_model_that_is_being_loaded_for_a_pool_that_is_gone_is_given_up(played: Played) -> None:
    played.host.stalls = True
    played.prepare()
    assert wait_until(lambda: hasattr(played.host, "is_wanted"))
    played.hosting.clear()
    assert wait_until(lambda: played.weights.forgotten)
    played.host.stalls = False
    played.prepare()
    assert played.becomes("ready")
    assert played.hosting.report().cause == ""


def test_late_orders_of_an_earlier_pool_change_nothing(played: Played) -> None:
    def check_there() -> None:
        raise Lost("the node is no longer with its pool")

    with pytest.raises(Lost, match="no longer with its pool"):
        played.hosting._want(WANTED, check_there)
    with pytest.raises(Lost, match="no longer with its pool"):
        played.hosting._tell(TOLD, b"its certificate", check_there)
    played.hosting._want(WANTED)
    assert played.hosting.report().state == "loading"
    assert not played.hosting._due()


def test_bytes_go_to_an_orchestrator_and_back_until_its_end(played: Played) -> None:
    with played.orchestrator() as (connection, first):
        assert isinstance(first, OrchestratorRuns)
        assert played.hosting.running == 1
        (child,) = played.host.children
        connection.socket.setblocking(True)
        connection.socket.sendall(b"there")
        assert child.far.recv(5) == b"there"
        child.far.sendall(b"back")
        assert connection.socket.recv(4) == b"back"
        with played.orchestrator() as (_, second):
            assert second == NoOrchestrator("node a runs 1 orchestrators, as many as it may")
    assert child.ended.wait(10)
    assert wait_until(lambda: played.hosting.running == 0)


def test_one_that_cannot_be_forked_is_told(played: Played) -> None:
    played.host.error = EngineStopped("the node has not loaded the model")
    with played.orchestrator() as (_, first):
        assert first == NoOrchestrator("the node has not loaded the model")
    assert wait_until(lambda: played.hosting.running == 0)
