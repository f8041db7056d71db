"""Orchestrators on nodes first, over nodes and a template that are played."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from faasmoe.errors import CheckpointError, ProcessLost
from faasmoe.fleet.placed_launcher import PlacedLauncher
from faasmoe.platforms.base import FunctionSpec
from faasmoe.protocol import dense_part
from faasmoe.protocol.config import About, EngineOptions, ServingConfig
from faasmoe.protocol.errors import failure_of
from faasmoe.protocol.messages import Failed, Message, Ready, Start, pack, read_start

ABOUT = About("arch", 1, 2, 3, 40, 500)


class Remote:
    """An orchestrator on a node that says `first`."""

    node = "a"

    def __init__(self, first: Message) -> None:
        self.socket, self._theirs = socket.socketpair()
        self._theirs.sendall(pack(first))
        self.ended: Future[str] = Future()
        self.leaves = False

    def cut(self) -> None:
        self._theirs.close()
        if not self.ended.done():
            self.ended.set_result("it was cut")


class Nodes:
    def __init__(self, *remotes: Remote) -> None:
        self.offers: list[tuple[bytes, FunctionSpec]] = []
        self.remotes = list(remotes)

    def offer(self, start: bytes, dense: FunctionSpec) -> None:
        self.offers.append((start, dense))

    @property
    def has_room(self) -> bool:
        return bool(self.remotes)

    def start(self) -> Remote | None:
        return self.remotes.pop(0) if self.remotes else None


class Template:
    running, loading = True, False

    async def ready(self) -> About:
        return ABOUT

    async def launch(self) -> SimpleNamespace:
        return SimpleNamespace(leaves=lambda: False)


def play(folder: Path, nodes: Nodes, test: Callable[[PlacedLauncher], Awaitable[None]]) -> None:
    config = ServingConfig("m", "/m", max_model_len=None, engine=EngineOptions(kv_cache_bytes=1000))
    start = Start(config, "nodes", "/pool", str(folder), 2)

    async def run() -> None:
        await test(PlacedLauncher(Template(), nodes, start))  # type: ignore[arg-type]

    asyncio.run(run())


def test_nodes_are_told_once_what_to_load(tmp_path: Path) -> None:
    dense_part.write(tmp_path / dense_part.DENSE, [("/m/config.json", 1, 2, 30, 4)], [("/m/config.json", 0, 30)])
    nodes = Nodes()

    async def test(launcher: PlacedLauncher) -> None:
        assert [await launcher.ready() for _ in range(2)] == [ABOUT] * 2

    play(tmp_path, nodes, test)
    ((start, dense),) = nodes.offers
    order = read_start(start)
    assert (order.deployed, order.orchestrators, order.pool, order.folder) == (True, 1, "", "")
    assert (order.config.max_model_len, order.config.engine.kv_cache_bytes) == (40, 500)
    assert [(str(each.file), each.offset, each.length) for each in dense.files] == [("/m/config.json", 0, 30)]


def test_weights_of_a_copy_keep_them_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = Nodes()

    async def test(launcher: PlacedLauncher) -> None:
        await launcher.ready()

    with caplog.at_level(logging.WARNING):
        play(tmp_path, nodes, test)
    assert not nodes.offers
    assert "used from a quantized copy" in caplog.text


def test_a_node_is_taken_first_and_then_this_machine(tmp_path: Path) -> None:
    remote = Remote(Ready())
    nodes = Nodes(remote)

    async def test(launcher: PlacedLauncher) -> None:
        first, second = await launcher.launch(), await launcher.launch()
        assert not first.leaves()
        remote.leaves = True
        assert first.leaves()
        assert not second.leaves()
        assert await first.end() == "it was cut"
        spare = Remote(Ready())
        nodes.remotes.append(spare)
        assert second.leaves()  # a node has room again
        spare.socket.close()
        spare.cut()

    play(tmp_path, nodes, test)


def test_one_that_cannot_start_there_is_ended(tmp_path: Path) -> None:
    remote = Remote(Failed(failure_of(CheckpointError("it is damaged"))))

    async def test(launcher: PlacedLauncher) -> None:
        with pytest.raises(CheckpointError, match="it is damaged"):
            await launcher.launch()

    play(tmp_path, Nodes(remote), test)
    assert remote.ended.result() == "it was cut"


def test_one_that_ends_while_it_starts_is_lost(tmp_path: Path) -> None:
    remote = Remote(Ready())
    remote._theirs.close()
    remote.socket.recv(1 << 10)

    async def test(launcher: PlacedLauncher) -> None:
        with pytest.raises(ProcessLost, match="has ended"):
            await launcher.launch()

    play(tmp_path, Nodes(remote), test)
