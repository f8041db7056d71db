"""What a server is told that waits for its first node, by a driver that is played."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from faasmoe.errors import OptionError, PlatformError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.ray import discovery
from faasmoe.platforms.ray.discovery import RayDiscovery
from faasmoe.platforms.ray.messages import NodesReport, to_packet
from faasmoe.platforms.ray.options import RayOptions
from tests import threads

NODE = NodeAddress("127.0.0.1", 7)


class Driver:
    """Tells `reports`, and goes on until it is killed."""

    pid = 17

    def __init__(self, channel: socket.socket, reports: list[NodesReport]) -> None:
        self._channel = channel
        for report in reports:
            channel.send(to_packet(report))

    def poll(self) -> None:
        """See `Popen`."""

    def wait(self, seconds: float = 0) -> None:
        """See `Popen`."""

    def kill(self) -> None:
        with suppress(OSError):
            self._channel.close()


Start = Callable[..., RayDiscovery]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    def started(*reports: NodesReport, seconds: float = 0.2) -> RayDiscovery:
        def play(module: str, stdin: int, more: dict[str, str]) -> Driver:
            return Driver(socket.socket(fileno=socket.dup(stdin)), list(reports))

        monkeypatch.setattr(discovery, "processes", SimpleNamespace(start=play))
        options = RayOptions(address="10.0.0.1:6379", cluster_folder=str(tmp_path), start_seconds=seconds)
        return RayDiscovery("p", options, ())

    with threads.none_left():
        yield started


@pytest.mark.parametrize(
    ("reports", "cause"),
    [
        ((), "nothing was heard of Ray at address 10.0.0.1:6379; process 17 was still connecting to it"),
        ((NodesReport(),), "Ray has answered, and the agents on its nodes have not told where they listen"),
        ((NodesReport(trouble="of 2 nodes none has CPUs"),), "of 2 nodes none has CPUs"),
    ],
)
def test_it_is_told_what_was_waited_for_and_how_long(
    start: Start, reports: tuple[NodesReport, ...], cause: str
) -> None:
    with pytest.raises(PlatformError, match=re.escape(f"no agent has started within 0.2 s: {cause}")):
        start(*reports)


def test_what_has_to_be_mended_is_told_at_once(start: Start) -> None:
    with pytest.raises(OptionError, match="address x: no Ray"):
        start(NodesReport(fatal="address x: no Ray"), seconds=60)


def test_nodes_stay_those_of_before_while_not_all_have_told(start: Start) -> None:
    with start(NodesReport(nodes=(NODE,), complete=True), NodesReport(complete=False), seconds=60) as made:
        assert made.nodes() == (NODE,)
