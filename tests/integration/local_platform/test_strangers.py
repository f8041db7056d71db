"""Clients that are no clients, and functions that want to get out."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from faasmoe.errors import FunctionError
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.protocol import wire
from tests.conformance.conftest import spec
from tests.integration.local_platform.conftest import ask


@pytest.mark.parametrize(
    "message",
    [b"", b"\xff" * 64, wire.framed(b"{}"), wire.framed(b'{"kind": "rm"}'), wire.framed(b'{"kind": "Activate"}'),
     wire.framed(b'{"kind": "Deploy", "functions": [["too", "short"]]}'), b"\x10" + bytes(7) + b"{"],
)  # fmt: skip
def test_nonsense_on_the_control_socket_harms_nobody(
    platform: LocalPlatform, artifact: Path, message: bytes
) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(platform.folder / "daemon.sock"))
        stranger.sendall(message)
        assert ask(platform, "f", payload=b"1") == [b"A:1"]
    assert ask(platform, "f", payload=b"2") == [b"A:2"]


@pytest.mark.parametrize(
    "noise", [b"", b"x", b"FMcq", b"\0" * 64, b"FMcq\1\0\0\0" + b"\xff" * 56, os.urandom(4096)]
)
def test_nonsense_on_an_instances_socket_harms_nobody(
    platform: LocalPlatform, artifact: Path, noise: bytes
) -> None:
    platform.deploy([spec("f", "pid", artifact)])
    before = ask(platform, "f")
    (path,) = (path for path in platform.folder.glob("*.sock") if path.name != "daemon.sock")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.sendall(noise)
        assert ask(platform, "f") == before
    assert ask(platform, "f") == before


@pytest.mark.parametrize("what", ["socket", "file"])
def test_an_instance_cannot_get_out(platform: LocalPlatform, artifact: Path, tmp_path: Path, what: str) -> None:
    platform.deploy([spec("f", "prisoner", artifact)])
    target = "socket" if what == "socket" else str(tmp_path / "escape")
    with pytest.raises(FunctionError, match="PermissionError"):
        ask(platform, "f", payload=target.encode())
    assert not (tmp_path / "escape").exists()
