"""What an agent refuses, and how it tells."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms import registry
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.protocol.frame import HEADER
from tests import authorities, nodes
from tests.conformance.conftest import spec
from tests.refusals import refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def agent(folder: Path) -> Iterator[nodes.Agent]:
    with nodes.cluster(folder, "a") as agents:
        yield agents[0]


def connected(agent: nodes.Agent) -> socket.socket:
    return socket.create_connection(("127.0.0.1", agent.port), 10)


def as_server(agent: nodes.Agent, folder: Path) -> ssl.SSLSocket:
    """A connection with the server's certificate."""
    return authorities.server(folder / "cluster").context(serving=False).wrap_socket(connected(agent))


def is_closed(sock: socket.socket) -> bool:
    """Whether the agent closes the connection, whatever it says before."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def serves(folder: Path) -> bool:
    with registry.start("nodes", (), **nodes.options(folder)) as platform:
        return platform.state == "ok"


def test_a_server_of_another_cluster_is_told_so(agent: nodes.Agent, folder: Path, tmp_path: Path) -> None:
    given = {**nodes.options(folder), "cluster_folder": str(tmp_path / "other")}
    refused("nodes", rf"node at {agent.address}: it belongs to another cluster", **given)
    assert serves(folder)


def test_another_version_of_the_protocol_is_told_ours(agent: nodes.Agent, folder: Path) -> None:
    with as_server(agent, folder) as sock:
        sock.sendall(struct.pack("<4sHHI4xQ", b"FMcl", 99, 1, 0, 0))
        answer = sock.recv(4096)
        assert struct.unpack_from("<4sH", answer) == (b"FMcl", 2)
        assert b"it speaks version 99 of the protocol of clusters, and this is version 2" in answer[HEADER:]
        assert is_closed(sock)
    assert serves(folder)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(1000),
        struct.pack("<4sHHI4xQ", b"FMcl", 1, 1, 1 << 30, 0),
        struct.pack("<4sHHI4xQ", b"FMcl", 1, 1, 5000, 0),
        struct.pack("<4sHHI4xQ", b"FMcl", 1, 1, 4, 1 << 40) + b"\x90\x90\x90\x90",
        struct.pack("<4sHHI4xQ", b"FMcl", 1, 1, 4, 0) + b"\xff\xff\xff\xff",
        struct.pack("<4sHHI4xQ", b"FMcl", 1, 2, 0, 0),
    ],
)
def test_garbage_and_frames_that_are_too_large_end_the_connection(
    agent: nodes.Agent, folder: Path, garbage: bytes
) -> None:
    for connection in (connected(agent), as_server(agent, folder)):
        with connection as sock:
            sock.sendall(garbage)
            assert is_closed(sock)
    assert serves(folder)


def test_a_second_server_is_refused_while_the_first_has_the_node(agent: nodes.Agent, folder: Path) -> None:
    given = nodes.options(folder)
    with registry.start("nodes", (), **given):
        refused("nodes", r"node at .*: another server has the node", **given)
    assert serves(folder)


def test_weights_that_are_missing_are_named_and_nothing_is_deployed(
    agent: nodes.Agent, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "artifact").write_text(f'A:\n[["{tmp_path / "gone"}", 1, 2, 10, 3]]\n')
    files = (FileRange(tmp_path / "gone", 0, 10),)
    with registry.start("nodes", (), **nodes.options(folder)) as platform:
        wrong = FunctionSpec("f", "tests.functions:echo", tmp_path / "artifact", files=files)
        with pytest.raises(OptionError, match=r"gone cannot be read: No such file"):
            platform.deploy([wrong, spec("g", "echo", tmp_path / "artifact")])
        assert platform.status().functions == []
        platform.deploy([spec("g", "echo", tmp_path / "artifact")])


def test_nobody_listening_is_named(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "nodes").write_text(f"127.0.0.1:{port}")
    cause = rf"node at 127.0.0.1:{port}: it cannot be reached: Connection refused"
    refused("nodes", cause, **nodes.options(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--listen", "nowhere"], "must be HOST:PORT"),
        (["--name", "a b"], "--name 'a b': must be 1 to 64 characters"),
        (["--join", "127.0.0.1:1", "--token-file", "/nowhere"], "/nowhere: cannot be read"),
        (["--cluster-folder", "/proc/nowhere"], "/proc/nowhere: cannot be made"),
    ],
)
def test_options_of_an_agent_are_checked(
    agent: nodes.Agent, folder: Path, arguments: list[str], error: str
) -> None:
    command = [sys.executable, "-m", "faasmoe.cli.main", "node", "--cluster-folder", str(folder / "cluster")]
    command += arguments
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert error in ended.stderr


def test_a_port_that_is_taken_is_refused(agent: nodes.Agent, folder: Path) -> None:
    command = [sys.executable, "-m", "faasmoe.cli.main", "node", "--cluster-folder", str(folder / "cluster")]
    command += ["--listen", agent.address]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "Address already in use" in ended.stderr
