"""The client of a cluster of Ray's: that of any cluster, but for clusters that have no node now."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Self

from faasmoe.errors import PlatformError
from faasmoe.platforms.base import Call, FunctionSpec, Replies
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.client.discovery import FileDiscovery, Lookout
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.cluster.pool_file import POOL, PoolFile
from faasmoe.platforms.ray.messages import waking_address

_LOOK_SECONDS = 0.2  # between looks for a node
_WAKE_SECONDS = 1.0  # between packets to the driver, which may just be starting
_RETURN_SECONDS = 300.0  # for a node to come


def wake(address: str) -> None:
    """Tell the driver of the pool at `address` that calls will come."""
    with suppress(OSError, PlatformError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(b"\0", waking_address(PoolFile.read(Path(address)).pool))


def _wait_for_node(folder: Path) -> None:
    """Have the pool get a node if it has none. Returns when there is one, the pool is gone, or it takes too long."""
    settled = Event()

    def read(_: Path) -> Sequence[NodeAddress]:
        try:
            nodes = PoolFile.read(folder).nodes
        except PlatformError:
            settled.set()
            raise
        if nodes:
            settled.set()
        return nodes

    discovery = FileDiscovery(folder / POOL, read)
    known, deadline = discovery.nodes(), time.monotonic() + _RETURN_SECONDS
    with Lookout(discovery, known, lambda _: None, _LOOK_SECONDS):
        while not settled.is_set() and time.monotonic() < deadline:
            wake(str(folder))
            settled.wait(_WAKE_SECONDS)


class RayPlatform(ClusterPlatform):
    """Functions on the nodes of a Ray cluster. Implements `platforms.base.Platform`."""

    @classmethod
    def of_pool(cls, address: str) -> Self:
        """See `ClusterPlatform.of_pool`. Waits for a node if there is none."""
        _wait_for_node(Path(address))
        return super().of_pool(address)

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """See `Platform.deploy`. Waits for a node if there is none."""
        deadline = time.monotonic() + _RETURN_SECONDS
        while self.state == "starting" and time.monotonic() < deadline:
            wake(self.address)
            self.membership.wait(self.membership.version, _LOOK_SECONDS)
        super().deploy(specs)

    def invoke_many(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        """See `Platform.invoke_many`. Calls wait for a node if there is none."""
        if self.state == "starting":
            wake(self.address)
        return super().invoke_many(calls, deadline, shared, meanwhile)
