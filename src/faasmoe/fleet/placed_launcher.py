"""Launches orchestrators on nodes that may have some, or else on this machine."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import replace
from pathlib import Path

from faasmoe.errors import ProcessLost
from faasmoe.fleet.launcher import TemplateClient
from faasmoe.fleet.link import Link
from faasmoe.fleet.replica_process import ReplicaProcess
from faasmoe.fleet.substitute import Substitute
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.orchestrator_nodes import OrchestratorNodes, RemoteOrchestrator
from faasmoe.protocol import dense_part
from faasmoe.protocol.config import About
from faasmoe.protocol.messages import Start, encode
from faasmoe.util.liveness import HeartbeatMonitor, SilenceLimits

log = logging.getLogger(__name__)

# the node watches the process itself, and the platform the node
_SILENCE = SilenceLimits(stopped=30.0, asleep=30.0, working=30.0)


class PlacedLauncher:
    """For one asyncio loop. See `fleet.Launcher`.

    An orchestrator on this machine takes the place of one on a node: it leaves as soon as its successor there is ready.
    """

    def __init__(self, template: TemplateClient, nodes: OrchestratorNodes, start: Start) -> None:
        """`start` is what the template was started with."""
        self._template = template
        self._nodes = nodes
        self._start = start
        self._offered = False
        self._successors: deque[ReplicaProcess] = deque()  # of substitutes that leave

    @property
    def running(self) -> bool:
        """See `Launcher`."""
        return self._template.running

    @property
    def loading(self) -> bool:
        """See `Launcher`."""
        return self._template.loading

    async def ready(self) -> About:
        """See `Launcher`. The template of this machine deploys the functions, and tells nodes what to load."""
        about = await self._template.ready()
        if not self._offered:
            self._offered = True
            self._offer(about)
        return about

    def _offer(self, about: About) -> None:
        artifact = Path(self._start.folder) / dense_part.DENSE
        try:
            ranges = dense_part.read(artifact)
        except FileNotFoundError:
            log.warning("orchestrators run on this machine: the model's weights are used from a quantized copy, which "
                        "nodes do not have")  # fmt: skip
            return
        except (OSError, ValueError) as error:
            log.error("orchestrators run on this machine: %s", error)
            return
        config = self._start.config
        engine = replace(config.engine, kv_cache_bytes=about.kv_cache_bytes)
        config = replace(config, max_model_len=about.max_model_len, engine=engine)
        start = Start(config, self._start.platform, "", "", orchestrators=1, deployed=True)
        files = tuple(FileRange(Path(file), offset, length) for file, offset, length in ranges)
        self._nodes.offer(encode(start), FunctionSpec("dense part", "", artifact, files=files))

    async def launch(self) -> ReplicaProcess:
        """See `Launcher`."""
        if self._successors:
            return self._successors.popleft()
        if process := await self._on_node():
            return process
        process = await self._template.launch()
        substitute = Substitute(lambda: self._nodes.has_room, self._on_node, self._successors.append)
        process.leaves = substitute.leaves
        process.when_gone(substitute.gone)
        return process

    async def _on_node(self) -> ReplicaProcess | None:
        """One on a node, which takes requests. None if no node can have one. Raises what keeps it from starting."""
        if (remote := await self._remote()) is None:
            return None
        process = await self._process(remote)
        try:
            await process.ready()
        except BaseException as error:
            if isinstance(error, Exception):  # else nobody wants it any more
                remote.fail()
            await process.end()
            raise
        remote.confirm()
        log.info("an orchestrator runs on node %s", remote.node)
        return process

    async def _remote(self) -> RemoteOrchestrator | None:
        if not self._nodes.has_room:
            return None
        starting = asyncio.get_running_loop().run_in_executor(None, self._nodes.start)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_give_up)
            raise

    async def _process(self, remote: RemoteOrchestrator) -> ReplicaProcess:
        try:
            link = await Link.over(remote.socket, HeartbeatMonitor(_SILENCE))
        except OSError as error:
            remote.cut()
            raise ProcessLost(f"node {remote.node}: {error}") from error
        return ReplicaProcess(link, asyncio.wrap_future(remote.ended), remote.cut, lambda: remote.leaves)

    def close(self) -> None:
        """See `Launcher`. Orchestrators on nodes end with their links."""
        while self._successors:
            self._successors.pop().abandon()
        self._template.close()


def _give_up(starting: asyncio.Future[RemoteOrchestrator | None]) -> None:
    """Nobody wants it any more."""
    if not starting.cancelled() and not starting.exception() and (remote := starting.result()):
        remote.socket.close()
        remote.cut()
