"""The orchestrators of a node: gets what they need, and carries their bytes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from faasmoe.errors import FaasmoeError
from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.agent.guest import Guest
from faasmoe.platforms.cluster.agent.orchestrator_host import OrchestratorHost
from faasmoe.platforms.cluster.authority import private_files
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity
from faasmoe.platforms.cluster.pool_file import PoolFile
from faasmoe.platforms.cluster.protocol import hosting_messages
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.hosting_messages import (
    DENSE,
    HostingReport,
    HostingState,
    NoOrchestrator,
    OrchestratorRuns,
    PrepareOrchestrators,
    TellPool,
)
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry
from faasmoe.platforms.cluster.protocol.relay import Relay
from faasmoe.platforms.cluster.weights.node_weights import NodeWeights
from faasmoe.util.closeable import Closeable
from faasmoe.util.folders.run_folder import RunFolder
from faasmoe.util.liveness import HeartbeatMonitor
from faasmoe.util.machine import available_memory

log = logging.getLogger(__name__)

_REPLY_SECONDS = 10.0  # for the server to take a reply
_RETRY_SECONDS = 10.0  # after a failure
_TICK = 1.0  # seconds between looks at the template
_LOOK_SECONDS = 2.0  # between looks whether weights that are under way are still wanted
_END_SECONDS = 5.0  # for the thread to end


class NodeHosting(Closeable):
    """For all threads. One of its own has the model loaded that the server wants, as long as it wants it."""

    def __init__(self, node: str, host: OrchestratorHost, identity: ClusterIdentity, weights: NodeWeights) -> None:
        """`identity` is what orchestrators show to agents. `weights` gets the dense part."""
        self._node = node
        self._host = host
        self._identity = identity
        self._weights = weights
        self._folder = RunFolder()
        self._changed = threading.Condition()  # its lock is that of everything below
        self._wanted: PrepareOrchestrators | None = None
        self._loaded: PrepareOrchestrators | None = None  # it is what the host has, or had when it ended
        self._under_way = False  # it has neither what it had nor what is wanted
        self._told = False  # where the pool is
        self._untold = ""  # why the last that it was told of that could not be taken
        self._cause = ""  # of the last failure to load what is wanted
        self._retry_at = 0.0  # instant of `time.monotonic`, after that
        self._count = 0  # orchestrators that run
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="hosting", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Orchestrators that run."""
        return self._count

    @cached_property
    def _request(self) -> bytes:
        from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415 (needs the extra)

        return certificates.signing_request(self._identity.key())

    def report(self) -> HostingReport:
        """The state of the node's orchestrators."""
        with self._changed:
            return HostingReport(
                state=self._state(),
                slots=self._host.slots,
                running=self._count,
                available=available_memory(),
                request=self._request,
                cause=self._untold or self._cause,
                untold=self._untold,
            )

    def _state(self) -> HostingState:
        if self._wanted is None:
            return "idle"
        if self._untold or self._cause:
            return "failed"
        return "ready" if self._loaded is self._wanted and self._host.ready else "loading"

    def serve(self, guest: Guest) -> NoReturn:
        """Take the orders of the head of the pool until it is gone. Raises `Lost`."""
        while True:
            asked = guest.connection.received(hosting_messages.read_asked, None)
            if isinstance(asked, PrepareOrchestrators):
                self._want(asked, guest.check_there)
            elif isinstance(asked, TellPool):
                self._tell(asked, guest.peer.certificate, guest.check_there)
            guest.connection.send(self.report(), time.monotonic() + _REPLY_SECONDS)

    def _want(self, wanted: PrepareOrchestrators | None, check_there: Callable[[], None] = lambda: None) -> None:
        """Raises `Lost` if `check_there` does: the node has left the pool of who wants it."""
        with self._changed:
            check_there()
            if wanted != self._wanted:
                self._wanted, self._cause, self._retry_at = wanted, "", 0.0
                self._changed.notify_all()

    def _tell(self, told: TellPool, server: bytes, check_there: Callable[[], None] = lambda: None) -> None:
        """Write down where the pool is: orchestrators that run see that it has changed.

        Raises `Lost` if `check_there` does: the node has left the pool of who tells it.
        """
        cause = ""
        nodes = tuple(NodeAddress(host, port) for host, port in told.nodes)
        folder, certificate = self._pool_folder, self._folder.path / "server.der"
        file = PoolFile(
            platform=told.platform,
            pool=told.pool,
            nodes=nodes,
            identity=self._identity.folder,
            server=certificate,
        )
        try:
            if told.certificate:
                self._identity.take(told.certificate, told.authority)
            folder.mkdir(exist_ok=True)
            private_files.write(certificate, server)
            file.write(folder)
        except (FaasmoeError, OSError) as error:
            cause = str(error)
            if cause != self._untold:
                log.error("node %s: it cannot keep where the pool is: %s", self._node, cause)
        with self._changed:
            check_there()
            self._untold = cause
            self._told = self._told or not cause
            self._changed.notify_all()

    @property
    def _pool_folder(self) -> Path:
        return self._folder.path / "pool"

    def clear(self) -> None:
        """The node is without a pool, or with another one."""
        with self._changed:
            self._told, self._untold = False, ""
        self._want(None)

    def run(self, connection: Connection) -> None:
        """Start an orchestrator, and carry its bytes over the connection until one of both ends. Raises `Lost`."""
        with self._slot() as taken:
            if not taken:
                why = f"node {self._node} runs {self._host.slots} orchestrators, as many as it may"
                connection.send(NoOrchestrator(why), time.monotonic() + _REPLY_SECONDS)
                return
            try:
                child = self._host.fork()
            except (FaasmoeError, OSError) as error:
                connection.send(NoOrchestrator(str(error)), time.monotonic() + _REPLY_SECONDS)
                return
            monitor = HeartbeatMonitor()
            monitor.watch(child.pid)

            def check(heard: bool) -> str:
                if heard:
                    monitor.beat()
                return monitor.tick()

            try:
                connection.send(OrchestratorRuns(), time.monotonic() + _REPLY_SECONDS)
                cause = Relay(connection, child.socket, check).run()
                log.info("node %s: an orchestrator ends: %s", self._node, cause)
            finally:
                child.end()

    @contextmanager
    def _slot(self) -> Iterator[bool]:
        with self._changed:
            taken = self._count < self._host.slots
            self._count += taken
        try:
            yield taken
        finally:
            with self._changed:
                self._count -= taken

    # The thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._due():
                    self._changed.wait(_TICK)
                if self._closed:
                    return
                wanted = self._wanted
            try:
                self._have(wanted)
            except (FaasmoeError, OSError) as error:
                self._failed(wanted, str(error))
            except Exception as error:  # a defect must not end the thread
                log.exception("node %s: orchestrators cannot be prepared", self._node)
                self._failed(wanted, type(error).__name__)

    def _due(self) -> bool:
        if self._under_way or self._loaded is not self._wanted:
            return time.monotonic() >= self._retry_at and (self._wanted is None or self._told)
        return self._wanted is not None and not self._host.ready  # its template has ended

    def _have(self, wanted: PrepareOrchestrators | None) -> None:
        """Have what is wanted loaded, and nothing else."""
        self._host.unload()
        self._loaded, self._under_way = None, True
        if wanted is None:
            self._weights.forget([DENSE])
            self._under_way = False
            return
        if not self._got(wanted):
            return
        checkpoint = self._linked(wanted.content)
        self._host.load(wanted.start, checkpoint, self._pool_folder, lambda: self._is_wanted(wanted))
        with self._changed:
            if self._wanted is wanted:
                self._loaded, self._under_way, self._cause = wanted, False, ""
                log.info("node %s: orchestrators can be started", self._node)

    def _got(self, wanted: PrepareOrchestrators) -> bool:
        """Get the dense part. False if it is no longer wanted. Raises `PlatformError` if it cannot be had."""
        spec = FunctionSpec(DENSE, "", Path(DENSE))
        self._weights.enter(CatalogueEntry(DENSE, 0, spec, wanted.content, (self._node,)), spec)
        while self._is_wanted(wanted):
            lacking = self._weights.get([DENSE], _LOOK_SECONDS)
            if lacking is None:
                return True
            if lacking.error != "under way":
                raise lacking.error_of("nodes", self._node)
        return False

    def _is_wanted(self, wanted: PrepareOrchestrators) -> bool:
        return self._wanted is wanted and not self._closed

    def _linked(self, content: FunctionContent) -> Path:
        """A folder with the files of the checkpoint, wherever they lie."""
        spec, folder = self._weights.spec(DENSE), self._folder.path / f"checkpoint-{content.digest[:16]}"
        folder.mkdir(exist_ok=True)
        places = {
            each.file: part.file for each, part in zip(content.ranges, spec.files if spec else (), strict=True)
        }
        for number, file in enumerate(content.files):
            link = folder / Path(file.path).name
            link.unlink(missing_ok=True)
            link.symlink_to(places[number])
        return folder

    def _failed(self, wanted: PrepareOrchestrators | None, cause: str) -> None:
        with self._changed:
            if self._wanted is not wanted:
                return  # it was given up for what is wanted now
            if cause != self._cause:
                log.error("node %s: it can run no orchestrators: %s", self._node, cause)
            self._cause = cause
            self._retry_at = time.monotonic() + _RETRY_SECONDS

    def close(self) -> None:
        """End all orchestrators. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._host.close()
        self._thread.join(_END_SECONDS)
        self._folder.close()
