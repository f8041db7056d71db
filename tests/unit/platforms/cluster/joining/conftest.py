"""Nodes that join over pairs of sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faasmoe.platforms.cluster.joining import enrolment
from tests.unit.platforms.cluster.joining.joins import JoinServer


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JoinServer]:
    made = JoinServer(tmp_path / "server")
    monkeypatch.setattr(socket, "create_connection", made.connect)

    def prepare(_: Any) -> None:
        """Pairs of sockets have no options of TCP."""

    monkeypatch.setattr(enrolment, "prepare", prepare)
    yield made
    made.finish()
