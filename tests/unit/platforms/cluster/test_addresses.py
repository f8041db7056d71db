"""Addresses of agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress, read_address, read_nodes


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:7000", "127.0.0.1", 7000), ("localhost:1", "127.0.0.1", 1), ("[::1]:80", "::1", 80)],
)
def test_addresses_of_this_machine(text: str, host: str, port: int) -> None:
    assert read_address(text) == NodeAddress(host, port)
    assert read_address(str(NodeAddress(host, port))) == NodeAddress(host, port)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("127.0.0.1", "must be HOST:PORT"),
        ("127.0.0.1:", "must be HOST:PORT"),
        ("127.0.0.1:70000", "must be HOST:PORT"),
        ("127.0.0.1:-1", "must be HOST:PORT"),
        ("example.org:80", "example.org must be an IP address"),
        ("10.0.0.1:80", "must be a loopback address"),
        ("0.0.0.0:80", "must be a loopback address"),
        ("[::]:80", "must be a loopback address"),
    ],
)
def test_other_addresses_are_refused(text: str, error: str) -> None:
    with pytest.raises(OptionError, match=error):
        read_address(text)


def test_a_list_of_nodes(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("# all\n127.0.0.1:1  # first\n\n127.0.0.1:2\n")
    assert read_nodes(tmp_path / "nodes") == [NodeAddress("127.0.0.1", 1), NodeAddress("127.0.0.1", 2)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "lists no node"),
        ("127.0.0.1:1\n127.0.0.1:1\n", "line 2: 127.0.0.1:1 is there twice"),
        ("\nfar:1", "line 2: far:1"),
    ],
)
def test_a_list_that_is_wrong_says_where(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "nodes").write_text(text)
    with pytest.raises(OptionError, match=error):
        read_nodes(tmp_path / "nodes")
    with pytest.raises(OptionError, match="cannot be read"):
        read_nodes(tmp_path / "gone")
