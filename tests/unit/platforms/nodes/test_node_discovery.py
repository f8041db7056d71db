"""The discovery of the platform `nodes`, with a listener that takes nobody in."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import authority as authorities
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.authority.members import Member, MemberBook
from faasmoe.platforms.cluster.joining.join_listener import JoinListener
from faasmoe.platforms.nodes import node_discovery
from faasmoe.platforms.nodes.node_discovery import NodeDiscovery
from faasmoe.platforms.nodes.options import NodesOptions


@pytest.fixture(autouse=True)
def no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    def bound(*_: Any) -> socket.socket:
        return socket.socket()

    monkeypatch.setattr(node_discovery, "bound", bound)
    monkeypatch.setattr(JoinListener, "start", lambda _: None)


def listed(discovery: NodeDiscovery) -> list[str]:
    return [str(node) for node in discovery.nodes()]


def member(port: int) -> Member:
    return Member(fingerprint=str(port), host="10.0.0.1", port=port)


def test_nodes_of_the_file_and_those_that_have_joined(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("10.0.0.1:1")
    folder = ClusterFolder(tmp_path / "cluster")
    options = NodesOptions(nodes_file=str(tmp_path / "nodes"), join="127.0.0.1:0")
    with NodeDiscovery(options, folder) as discovery:
        assert listed(discovery) == ["10.0.0.1:1"]
        members = MemberBook(folder.path)
        members.join("a", member(1), replace=False)
        members.join("b", member(2), replace=False)
        assert listed(discovery) == ["10.0.0.1:1", "10.0.0.1:2"]
        members.remove("b")
        assert listed(discovery) == ["10.0.0.1:1"]
    assert authorities.is_there(folder.path)
    folder.server.check()


def test_members_survive_the_server(tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path)
    MemberBook(tmp_path).join("a", member(1), replace=False)
    with NodeDiscovery(NodesOptions(join="127.0.0.1:0"), folder) as discovery:
        assert [str(node) for node in discovery.first()] == ["10.0.0.1:1"]


def test_without_join_nodes_of_the_file_alone_belong_to_it(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("10.0.0.1:1")
    MemberBook(tmp_path).join("b", member(2), replace=False)
    with NodeDiscovery(NodesOptions(nodes_file=str(tmp_path / "nodes")), ClusterFolder(tmp_path)) as discovery:
        assert listed(discovery) == ["10.0.0.1:1"]


def test_members_that_cannot_be_read_stay_those_of_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    MemberBook(tmp_path).join("a", member(1), replace=False)
    with NodeDiscovery(NodesOptions(join="127.0.0.1:0"), ClusterFolder(tmp_path)) as discovery:
        assert listed(discovery) == ["10.0.0.1:1"]
        (tmp_path / "members.json").write_text("{")
        for _ in range(2):
            assert listed(discovery) == ["10.0.0.1:1"]
    assert caplog.text.count("the members stay those of before") == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    options = NodesOptions(nodes_file=str(tmp_path / "gone"))
    with (
        NodeDiscovery(options, ClusterFolder(tmp_path)) as discovery,
        pytest.raises(OptionError, match="gone: cannot be read"),
    ):
        discovery.nodes()
