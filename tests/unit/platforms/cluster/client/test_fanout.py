"""Fan-outs over nodes that are threads at the other ends of pairs of sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from faasmoe.errors import DeadlineExceeded, FunctionError, PlatformError
from faasmoe.platforms.base import Call
from faasmoe.platforms.cluster.agent.batches import Batches
from faasmoe.platforms.cluster.client.fanout import ClusterFanout
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.messages import Failure
from tests.unit.platforms.cluster.ends import Echoes, serve


class Node:
    """A link to a node that answers at once."""

    def __init__(self, name: str) -> None:
        self.name, self.epoch, self.cores = name, 1, 1
        self.echoes, self.draining = Echoes(f"{name}:"), False
        self.spare: list[Connection] = []
        self.ends: list[tuple[Connection, Batches]] = []

    def take(self) -> Connection:
        if not self.spare:
            self.ends.append(serve(self.echoes, lambda: self.draining))
            return self.ends[-1][0]
        return self.spare.pop()

    def give_back(self, connection: Connection) -> None:
        self.spare.append(connection)

    def drop(self, connection: Connection) -> None:
        connection.close()

    def die(self) -> None:
        """What a client sees of a node that is killed."""
        for _, batches in self.ends:
            batches._connection.cut()


class Cluster:
    """A membership of such nodes. Functions of a lost node come to the others."""

    platform = "nodes"

    def __init__(self) -> None:
        self.nodes = {name: Node(name) for name in "ab"}
        self.hosts = {"f": ("a",), "g": ("b",), "h": ("a",)}
        self.readings: dict[str, int] = {}
        self.version = 0
        self.lost: list[str] = []

    def callable(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.name not in self.lost and not node.draining]

    def lose(self, link: Node, epoch: int, cause: str) -> None:
        if link.name not in self.lost:
            self.lost.append(link.name)
            self._move()

    def drained(self, link: Node) -> None:
        self._move()

    def _move(self) -> None:
        left = [node.name for node in self.callable()]
        self.hosts = {
            name: (host[0] if host[0] in left else "".join(left[:1]),) for name, host in self.hosts.items()
        }
        self.version += 1

    def wait(self, version: int, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))

    def causes(self) -> str:
        return "; ".join(f"node {name}: gone" for name in self.lost)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    for node in made.nodes.values():
        for connection, batches in node.ends:
            connection.close()
            batches.thread.join()


@pytest.fixture
def asked() -> list[tuple[str, str]]:
    """Nodes that were asked to get a function's weights, and the functions."""
    return []


@pytest.fixture
def fanout(cluster: Cluster, asked: list[tuple[str, str]]) -> ClusterFanout:
    def prepare(link: Node, function: str) -> None:
        asked.append((link.name, function))

    return ClusterFanout(cluster, SimpleNamespace(check_known=lambda names: None, prepare=prepare))


def calls(*names: str) -> list[Call]:
    return [Call(name, [name.encode(), b"!"]) for name in names]


def soon() -> float:
    return time.monotonic() + 10


def test_each_node_has_one_frame(cluster: Cluster, fanout: ClusterFanout) -> None:
    for _ in range(2):
        replies = fanout.run(calls("f", "g", "h"), soon())
        assert list(map(bytes, replies)) == [b"a:f!", b"b:g!", b"a:h!"]
        assert (replies.busy, replies.memory) == ([0.5] * 3, [7] * 3)
    assert cluster.nodes["a"].echoes.batches == [["f", "h"]] * 2
    assert cluster.nodes["b"].echoes.batches == [["g"]] * 2
    assert len(cluster.nodes["a"].ends) == 1


def test_a_node_gets_the_rows_that_its_calls_read(cluster: Cluster, fanout: ClusterFanout) -> None:
    shared = b"".join(b"%04d" % row for row in range(1000))
    batch = [
        Call(name, [b"%d" % row], rows=np.array([row, 3], np.int32).data, row_bytes=4)
        for name, row in (("f", 5), ("g", 999), ("h", 6))
    ]
    assert list(map(bytes, fanout.run(batch, soon(), shared))) == [b"a:0005", b"b:0999", b"a:0006"]
    received = [node.ends[0][1].traffic.received for node in cluster.nodes.values()]
    assert max(received) < 200


def test_without_rows_all_of_the_shared_buffer_is_sent(cluster: Cluster, fanout: ClusterFanout) -> None:
    shared = b"".join(b"%04x" % row for row in range(50_000))
    replies = fanout.run([Call("f", [b"49999"]), Call("g", [b"0"])], soon(), shared)
    assert list(map(bytes, replies)) == [b"a:%04x" % 49999, b"b:0000"]
    assert cluster.nodes["a"].ends[0][1].traffic.received > len(shared)


def test_a_lost_node_is_replaced_in_the_same_batch(cluster: Cluster, fanout: ClusterFanout) -> None:
    fanout.run(calls("f", "g"), soon())
    cluster.nodes["a"].die()
    assert list(map(bytes, fanout.run(calls("f", "g", "h"), soon()))) == [b"b:f!", b"b:g!", b"b:h!"]
    assert cluster.lost == ["a"]
    assert list(map(bytes, fanout.run(calls("f", "g"), soon()))) == [b"b:f!", b"b:g!"]


def test_a_draining_node_is_not_called_again(cluster: Cluster, fanout: ClusterFanout) -> None:
    fanout.run(calls("f", "g"), soon())
    cluster.nodes["a"].draining = True
    assert list(map(bytes, fanout.run(calls("f", "g"), soon()))) == [b"b:f!", b"b:g!"]
    assert cluster.lost == []


def test_an_error_ends_the_batch_and_spoils_no_later_one(cluster: Cluster, fanout: ClusterFanout) -> None:
    cluster.nodes["a"].echoes.error = FunctionError("f", "ValueError", "no")
    with pytest.raises(FunctionError, match="function f failed with ValueError: no"):
        fanout.run(calls("f", "g"), soon())
    cluster.nodes["a"].echoes.error = None
    assert list(map(bytes, fanout.run(calls("g", "f"), soon()))) == [b"b:g!", b"a:f!"]


def test_without_nodes_the_deadline_says_why(cluster: Cluster, fanout: ClusterFanout) -> None:
    for node in cluster.nodes.values():
        cluster.lose(node, 1, "")
    with pytest.raises(
        DeadlineExceeded, match=r"function f: no answer within the deadline .* node a: gone; node b: gone"
    ):
        fanout.run(calls("f"), time.monotonic() - 0.4)


def test_meanwhile_runs_when_all_is_sent(cluster: Cluster, fanout: ClusterFanout) -> None:
    seen: list[int] = []
    replies = fanout.run(calls("f", "g"), soon(), None, lambda: seen.append(1))
    assert (len(replies), seen) == (2, [1])


def lacks(error: str, *functions: str) -> Failure:
    return Failure(kind="weights", cause="no weights", error=error, lacking=functions)


def test_calls_of_a_node_that_lacks_weights_go_to_another_and_the_others_stay(
    cluster: Cluster, fanout: ClusterFanout
) -> None:
    cluster.nodes["a"].echoes.failure = lacks("under way", "f")
    for _ in range(2):
        assert list(map(bytes, fanout.run(calls("f", "g", "h"), soon()))) == [b"b:f!", b"b:g!", b"a:h!"]
    assert cluster.lost == []


def test_weights_that_are_nowhere_yet_are_waited_for(cluster: Cluster, fanout: ClusterFanout) -> None:
    for node in cluster.nodes.values():
        node.echoes.failure = lacks("under way", "f")
    threading.Timer(0.05, lambda: setattr(cluster.nodes["a"].echoes, "failure", None)).start()
    assert list(map(bytes, fanout.run(calls("f"), soon()))) == [b"a:f!"]
    cluster.nodes["a"].echoes.failure = lacks("under way", "f")
    with pytest.raises(DeadlineExceeded, match=r"node [ab]: f: no weights"):
        fanout.run(calls("f"), time.monotonic() + 0.1)


def test_a_node_that_is_no_host_is_asked_to_get_what_the_host_cannot(
    cluster: Cluster, fanout: ClusterFanout, asked: list[tuple[str, str]]
) -> None:
    cluster.nodes["a"].echoes.failure = lacks("failed", "f")
    cluster.nodes["b"].echoes.failure = lacks("elsewhere", "f")
    threading.Timer(0.05, lambda: setattr(cluster.nodes["b"].echoes, "failure", None)).start()
    assert list(map(bytes, fanout.run(calls("f"), soon()))) == [b"b:f!"]
    assert asked == [("b", "f")]


def test_weights_that_no_node_can_get_are_an_error_at_once(cluster: Cluster, fanout: ClusterFanout) -> None:
    for node in cluster.nodes.values():
        node.echoes.failure = lacks("failed", "f")
    with pytest.raises(PlatformError, match=r"function f: no weights \(node a\)"):
        fanout.run(calls("f", "g"), soon())
    assert list(map(bytes, fanout.run(calls("g"), soon()))) == [b"b:g!"]
