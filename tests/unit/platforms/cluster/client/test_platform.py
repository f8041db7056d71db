"""What is left of a client that cannot begin."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.client import platform
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.cluster.pool_file import PoolFile
from faasmoe.util.folders import run_folder
from tests import authorities, threads


class NoNodes:
    """A discovery that finds none."""

    closed = False

    def nodes(self) -> list[NodeAddress]:
        return []

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def discovery(monkeypatch: pytest.MonkeyPatch) -> Iterator[NoNodes]:
    """Nothing may be left at the end: it is closed, and there are neither threads nor run folders."""
    made = NoNodes()
    with tempfile.TemporaryDirectory(prefix="run-") as folder, threads.none_left():
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield made
        assert made.closed
        assert run_folder.live() == []


def pool(folder: Path) -> PoolFile:
    return PoolFile(platform="nodes", pool="p", nodes=(), identity=authorities.server(folder).folder)


def test_nothing_without_a_node(discovery: NoNodes, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no use without these nodes"):
        ClusterPlatform(pool(tmp_path), discovery)


def test_nothing_after_an_error_half_way(
    discovery: NoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(platform, "WeightSupply", fail)
    with pytest.raises(RuntimeError, match="new thread"):
        ClusterPlatform(pool(tmp_path), discovery)
