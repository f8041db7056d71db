"""The server's side: starts Ray's driver, and has heard of it which nodes there are."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from faasmoe.errors import OptionError, PlatformError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.authority.identity import Role
from faasmoe.platforms.cluster.joining.renewal import Renewal
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.ray.messages import (
    LARGEST_PACKET,
    AgentSettings,
    DriverOrder,
    NodesReport,
    ScalingLimits,
    from_packet,
    to_packet,
)
from faasmoe.platforms.ray.options import RayOptions
from faasmoe.util import logs, processes
from faasmoe.util.backoff import Backoff
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

_DRIVER = "faasmoe.platforms.ray.driver"
_AUTHENTICATION = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")  # a driver's alone
_SILENCE = 15.0  # seconds without a report after which it is logged
_CLOSE_SECONDS = 3.0  # for the driver to end the agents
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two drivers


class RayDiscovery(Closeable):
    """Implements `cluster.client.discovery.Discovery`. While Ray does not answer the nodes are those of before."""

    def __init__(self, pool: str, options: RayOptions, preload: Sequence[str]) -> None:
        """Waits for the first node of the pool's. Raises `OptionError` or `PlatformError`."""
        folder = ClusterFolder.of(options.cluster_folder)
        self.identity = folder.server
        provide = partial(Authority(folder.path).provide, self.identity, Role.SERVER, "server")
        provide()
        self._order = DriverOrder(
            address=options.address,
            node_memory=options.node_memory,
            limits=ScalingLimits(
                min_nodes=options.min_nodes, max_nodes=options.max_nodes, idle_seconds=options.idle_seconds
            ),
            cluster_folder=str(folder.path),
            agents=AgentSettings(
                pool=pool,
                namespace=options.namespace,
                local_options=_local(options).to_json(),
                preload=tuple(preload),
                log=os.environ.get(logs.VARIABLE, logs.PLAIN),
            ),
        )
        self._changed = threading.Condition()  # its lock is that of what follows
        self._report: NodesReport | None = None  # the last one
        self._driver: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._closed = False
        self._silent = False
        self._renewal = Renewal(provide)
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()
        try:
            self._settle(options.start_seconds)
        except BaseException:
            self.close()
            raise

    def nodes(self) -> Sequence[NodeAddress]:
        """See `Discovery`."""
        with self._changed:
            return self._nodes

    @property
    def _nodes(self) -> tuple[NodeAddress, ...]:
        return self._report.nodes if self._report else ()

    def _settle(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._nodes or (self._report and self._report.fatal), seconds)
            report = self._report or NodesReport(trouble=self._waited_for())
            if report.fatal:
                raise OptionError(report.fatal)
            if not report.nodes:
                cause = (
                    report.trouble
                    or "Ray has answered, and the agents on its nodes have not told where they listen"
                )
                raise PlatformError("ray", "(all)", f"no agent has started within {seconds:g} s: {cause}")

    def _waited_for(self) -> str:
        """What is known while nothing was reported: the process that talks with Ray may be slow, or Ray."""
        if self._driver is not None and self._driver.poll() is None:
            process = f"process {self._driver.pid} was still connecting to it"
        else:
            process = "the process that connects to it has ended"
        return f"nothing was heard of Ray at address {self._order.address}; {process}"

    # The thread

    def _run(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while (channel := self._start()) is not None:
            with channel:
                self._listen(channel)
            with self._changed:
                if not self._closed:
                    log.warning("Ray's driver has ended; serving goes on with %d nodes", len(self._nodes))
                self._changed.wait_for(lambda: self._closed, backoff.failed())

    def _start(self) -> socket.socket | None:
        """Start a driver. Returns the channel to it; None: this is closed."""
        with self._changed:
            if self._closed:
                return None
            self._end_driver()  # the one before
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                more = {name: os.environ[name] for name in _AUTHENTICATION if name in os.environ}
                self._driver = processes.start(_DRIVER, stdin=theirs.fileno(), more=more)
            self._channel = ours
        ours.settimeout(_SILENCE)
        with suppress(OSError):  # it has ended, which is heard next
            ours.send(to_packet(self._order))
        return ours

    def _listen(self, channel: socket.socket) -> None:
        """Take reports until the driver ends."""
        while True:
            try:
                packet = channel.recv(LARGEST_PACKET)
            except TimeoutError:
                if not self._silent:
                    log.warning("no report of Ray's driver within %g s: serving goes on with %d nodes", _SILENCE,
                                len(self._nodes))  # fmt: skip
                self._silent = True
                continue
            except OSError:
                return
            if not packet:
                return
            self._silent = False
            report = from_packet(packet)
            if isinstance(report, NodesReport):
                self._take(report)

    def _take(self, report: NodesReport) -> None:
        with self._changed:
            trouble, before = report.fatal or report.trouble, self._report or NodesReport()
            if trouble and trouble != (before.fatal or before.trouble):
                log.warning("Ray: %s", trouble)
            nodes = before.nodes if report.fatal or not report.complete else report.nodes
            self._report = NodesReport(nodes=nodes, trouble=report.trouble, fatal=report.fatal)
            self._changed.notify_all()

    def _end_driver(self) -> None:
        if self._driver is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._driver.wait(_CLOSE_SECONDS if self._closed else 0.0)
        self._driver.kill()
        self._driver.wait()
        self._driver = None

    def close(self) -> None:
        """Have the driver end the agents. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._channel is not None:
                with suppress(OSError):  # the driver has ended
                    self._channel.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._end_driver()
        self._renewal.close()


def _local(options: RayOptions) -> LocalOptions:
    return LocalOptions(keep_alive=options.keep_alive, release_page_cache=options.release_page_cache)
