"""Which nodes there are."""

from __future__ import annotations

import logging
import queue
from collections.abc import Sequence
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress, read_nodes
from faasmoe.platforms.cluster.client.discovery import FileDiscovery, Lookout


def ports(nodes: Sequence[NodeAddress]) -> list[int]:
    return [node.port for node in nodes]


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file, reads = tmp_path / "nodes", []

    def read(file: Path) -> list[NodeAddress]:
        reads.append(file)
        return read_nodes(file)

    file.write_text("127.0.0.1:1\n127.0.0.1:2\n")
    discovery = FileDiscovery(file, read)
    assert [ports(discovery.nodes()) for _ in range(3)] == [[1, 2]] * 3
    assert len(reads) == 1
    file.write_text("127.0.0.1:2\n127.0.0.1:33\n")
    assert [ports(discovery.nodes()) for _ in range(3)] == [[2, 33]] * 3
    assert len(reads) == 2
    discovery.close()


def test_a_file_that_cannot_be_read_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "nodes"
    discovery = FileDiscovery(file, read_nodes)
    with pytest.raises(OptionError, match="cannot be read"):
        discovery.nodes()
    file.write_text("127.0.0.1:1")
    assert ports(discovery.nodes()) == [1]
    with caplog.at_level(logging.WARNING):
        for broken in (lambda: file.write_text("nonsense"), file.unlink):
            broken()
            assert [ports(discovery.nodes()) for _ in range(3)] == [[1]] * 3
    assert len(caplog.records) == 2
    file.write_text("127.0.0.1:5")
    assert ports(discovery.nodes()) == [5]


class Announced:
    """A discovery whose answers the test gives."""

    def __init__(self) -> None:
        self.answers: queue.Queue[list[NodeAddress]] = queue.Queue()

    def nodes(self) -> list[NodeAddress]:
        return self.answers.get(timeout=10)

    def close(self) -> None:
        """See `Discovery`."""


def test_a_lookout_tells_what_has_changed() -> None:
    one, two = NodeAddress("127.0.0.1", 1), NodeAddress("127.0.0.1", 2)
    discovery, told = Announced(), queue.Queue[Sequence[NodeAddress]]()
    with Lookout(discovery, [one], told.put, period=0.0):
        for answer in ([one], [one, two], [one, two], [two], []):
            discovery.answers.put(answer)
        assert [told.get(timeout=10) for _ in range(3)] == [[one, two], [two], []]
        discovery.answers.put([])
    assert told.empty()
