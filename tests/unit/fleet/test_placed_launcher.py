"""Orchestrators on nodes first, over nodes and a template that are played."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointError, ProcessLost
from faasmoe.fleet.placed_launcher import PlacedLauncher
from faasmoe.platforms.base import FunctionSpec
from faasmoe.protocol import dense_part
from faasmoe.protocol.config import About, EngineOptions, ServingConfig
from faasmoe.protocol.errors import failure_of
from faasmoe.protocol.messages import Failed, Message, Ready, Start, Starting, pack, read_start
from tests.unit.fleet.fleets import turn, until

ABOUT = About("arch", 1, 2, 3, 40, 500)


class Remote:
    """An orchestrator on a node that says `first`."""

    node = "a"

    def __init__(self, first: Message) -> None:
        self.socket, self._theirs = socket.socketpair()
        self._theirs.sendall(pack(first))
        self.ended: Future[str] = Future()
        self.leaves = self.confirmed = self.failed = False

    def confirm(self) -> None:
        self.confirmed = True

    def fail(self) -> None:
        self.failed = True
        self.cut()

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


class Local:
    """An orchestrator on this machine."""

    def __init__(self) -> None:
        self.leaves: Callable[[], bool] = lambda: False
        self.gone: Callable[[], object] = lambda: None

    def when_gone(self, tell: Callable[[], object]) -> None:
        self.gone = tell


class Template:
    running, loading = True, False

    async def ready(self) -> About:
        return ABOUT

    async def launch(self) -> Local:
        return Local()

    def close(self) -> None:
        """See `TemplateClient`."""


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
        assert remote.confirmed
        assert await first.end() == "it was cut"

    play(tmp_path, nodes, test)


def test_one_on_this_machine_leaves_when_its_successor_is_ready(tmp_path: Path) -> None:
    nodes = Nodes()

    async def test(launcher: PlacedLauncher) -> None:
        here = await launcher.launch()
        assert not here.leaves()
        broken, good = Remote(Failed(failure_of(CheckpointError("it is damaged")))), Remote(Ready())
        nodes.remotes.append(broken)
        for _ in range(2):
            assert not here.leaves()  # begins to start one
            await until(broken.ended.done)
        assert broken.failed
        nodes.remotes.append(good)
        await until(here.leaves)
        assert good.confirmed
        assert not here.leaves()  # one is enough
        successor = await launcher.launch()
        assert not successor.leaves()
        assert await successor.end() == "it was cut"

    play(tmp_path, nodes, test)


def test_one_that_ends_before_needs_no_successor(tmp_path: Path) -> None:
    early, ready, nodes = Remote(Starting()), Remote(Ready()), Nodes()

    async def test(launcher: PlacedLauncher) -> None:
        here, there = await launcher.launch(), await launcher.launch()
        for substitute, remote in ((here, early), (there, ready)):
            nodes.remotes.append(remote)
            assert not substitute.leaves()
            await until(lambda: not nodes.remotes)
        await until(lambda: ready.confirmed)
        await turn()
        for substitute, remote in ((here, early), (there, ready)):
            substitute.gone()  # type: ignore[attr-defined]
            await until(remote.ended.done)
        assert not early.failed

    play(tmp_path, nodes, test)


def test_a_successor_that_nobody_takes_ends_with_the_launcher(tmp_path: Path) -> None:
    nodes = Nodes()

    async def test(launcher: PlacedLauncher) -> None:
        here, remote = await launcher.launch(), Remote(Ready())
        nodes.remotes.append(remote)
        await until(here.leaves)
        launcher.close()
        assert remote.ended.result() == "it was cut"
        await turn()

    play(tmp_path, nodes, test)


def test_one_that_cannot_start_there_is_ended(tmp_path: Path) -> None:
    remote = Remote(Failed(failure_of(CheckpointError("it is damaged"))))

    async def test(launcher: PlacedLauncher) -> None:
        with pytest.raises(CheckpointError, match="it is damaged"):
            await launcher.launch()

    play(tmp_path, Nodes(remote), test)
    assert remote.ended.result() == "it was cut"
    assert remote.failed


def test_one_that_ends_while_it_starts_is_lost(tmp_path: Path) -> None:
    remote = Remote(Ready())
    remote._theirs.close()
    remote.socket.recv(1 << 10)

    async def test(launcher: PlacedLauncher) -> None:
        with pytest.raises(ProcessLost, match="has ended"):
            await launcher.launch()

    play(tmp_path, Nodes(remote), test)
