"""Addresses of agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress, check_name, read_address, read_nodes


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7000", "127.0.0.1", 7000),
        ("localhost:1", "127.0.0.1", 1),
        ("[::1]:80", "::1", 80),
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("node-2.example.org:80", "node-2.example.org", 80),
        ("rack_1:80", "rack_1", 80),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert read_address(text) == NodeAddress(host, port)
    assert read_address(str(NodeAddress(host, port))) == NodeAddress(host, port)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("127.0.0.1", "must be HOST:PORT"),
        ("127.0.0.1:", "must be HOST:PORT"),
        ("127.0.0.1:70000", "must be HOST:PORT"),
        ("127.0.0.1:-1", "must be HOST:PORT"),
        ("10.0.0.300:80", "10.0.0.300 must be an IP address, or the name of a machine"),
        ("a b:80", "a b must be an IP address"),
        ("-x:80", "-x must be an IP address"),
        (f"{'a' * 254}:80", "must be an IP address"),
    ],
)
def test_what_is_no_address_is_refused(text: str, error: str) -> None:
    with pytest.raises(OptionError, match=error):
        read_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.2", True), ("::1", True), ("10.0.0.1", False), ("0.0.0.0", False), ("a", False)],
)
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert NodeAddress(host, 1).is_loopback is loopback


@pytest.mark.parametrize("name", ["", "a b", "a/b", ".", "..", ".a", "a\n", "x" * 65])
def test_names_that_no_node_can_have(name: str) -> None:
    with pytest.raises(OptionError, match=r"--name .*: must be 1 to 64 characters"):
        check_name(name)
    check_name("näme-1.x")


def test_a_list_of_nodes(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("# all\n127.0.0.1:1  # first\n\n127.0.0.1:2\n")
    assert read_nodes(tmp_path / "nodes") == [NodeAddress("127.0.0.1", 1), NodeAddress("127.0.0.1", 2)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "lists no node"),
        ("127.0.0.1:1\n127.0.0.1:1\n", "line 2: 127.0.0.1:1 is there twice"),
        ("\nfar", "line 2: far: must be HOST:PORT"),
    ],
)
def test_a_list_that_is_wrong_says_where(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "nodes").write_text(text)
    with pytest.raises(OptionError, match=error):
        read_nodes(tmp_path / "nodes")
    with pytest.raises(OptionError, match="cannot be read"):
        read_nodes(tmp_path / "gone")
