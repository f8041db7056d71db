"""The client of a cluster, as a platform."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from faasmoe.platforms.base import (
    Call,
    Capabilities,
    FunctionSpec,
    PoolStatus,
    Replies,
    State,
)
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity
from faasmoe.platforms.cluster.authority.members import MemberBook
from faasmoe.platforms.cluster.authority.signing import signer
from faasmoe.platforms.cluster.client.discovery import Discovery, FileDiscovery, Lookout
from faasmoe.platforms.cluster.client.fanout import ClusterFanout
from faasmoe.platforms.cluster.client.hosting.keeper import Certify
from faasmoe.platforms.cluster.client.hosting.nodes import ClusterOrchestratorNodes
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.client.orders import ClusterOrders
from faasmoe.platforms.cluster.client.rebalancer import Rebalancer
from faasmoe.platforms.cluster.client.reports.status import joined
from faasmoe.platforms.cluster.client.steward import Steward
from faasmoe.platforms.cluster.client.weights.supply import WeightSupply
from faasmoe.platforms.cluster.pool_file import POOL, PoolFile
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import CheckFits, PrewarmFunctions, StopFunctions
from faasmoe.platforms.cluster.signed_entries import PURPOSE
from faasmoe.util.closeable import Closeable
from faasmoe.util.folders.run_folder import RunFolder, writing

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 5.0  # for the nodes to join


class ClusterPlatform(Closeable):
    """Functions on the nodes of a cluster. Implements `platforms.base.Platform`.

    Without `folder` it is the head of a new pool. With `folder` it is one of the clients of the pool whose head has
    that run folder.
    """

    def __init__(
        self,
        pool: PoolFile,
        discovery: Discovery,
        *,
        folder: Path | None = None,
        hosting: tuple[frozenset[str], Certify] | None = None,
    ) -> None:
        """`discovery` tells when there are other nodes than those of `pool`, and is closed with this.

        `hosting`, for the head: names of the nodes that may run orchestrators, and what makes their certificates.

        Raises `PlatformError` if no node can be used, `OptionError` if the server's certificate is no use.
        """
        identity = ClusterIdentity(pool.identity)
        identity.check()
        sign = signer(identity.key(), PURPOSE)
        # the server alone knows which certificates count; see `ClusterFolder`
        members = MemberBook(identity.folder.parent) if pool.server is None else None
        credentials = Credentials(
            identity=identity, pool=pool.pool, head=folder is None, server=pool.server, members=members
        )
        self._pool, self._head = pool, folder is None
        with ExitStack() as parts:  # what was entered last ends first, and all of it if anything fails
            self.folder = folder or parts.enter_context(RunFolder()).path
            if self._head:
                with writing(self.folder):
                    pool.write(self.folder)
            parts.callback(discovery.close)  # it may end the nodes
            self.membership = parts.enter_context(Membership(pool.platform, credentials))
            self.orders = ClusterOrders(self.membership, sign)
            self._fanout = ClusterFanout(self.membership, self.orders)
            self.orchestrator_nodes: ClusterOrchestratorNodes | None = None
            self._begin(parts, discovery, hosting)
            self._parts = parts.pop_all()
        cores = sum(link.cores for link in self.membership.ready())
        self.capabilities = Capabilities(shared_memory=True, worth_sharing=0, parallelism=cores)

    def _begin(
        self, parts: ExitStack, discovery: Discovery, hosting: tuple[frozenset[str], Certify] | None
    ) -> None:
        """Join the nodes, and begin what goes on by itself."""
        parts.enter_context(Steward(self.membership)).start()
        self.membership.set_nodes(self._pool.nodes)
        parts.enter_context(Lookout(discovery, self._pool.nodes, self._set_nodes))
        self.rebalancer = parts.enter_context(Rebalancer(self.membership, self.orders))
        offered: Mapping[str, FunctionContent] = {}
        if hosting:
            names, certify = hosting
            self.orchestrator_nodes = parts.enter_context(
                ClusterOrchestratorNodes(self.membership, names, self._pool.pool, certify)
            )
            offered = self.orchestrator_nodes.offered
        if self._head:
            parts.enter_context(WeightSupply(self.membership, offered))
        self.membership.settle(_SETTLE_SECONDS)
        if self._head:
            self.rebalancer.start()

    @classmethod
    def of_pool(cls, address: str) -> Self:
        """A client of the pool at an `address`. Raises `PlatformError` if there is none."""
        folder = Path(address)
        discovery = FileDiscovery(folder / POOL, lambda _: PoolFile.read(folder).nodes)
        return cls(PoolFile.read(folder), discovery, folder=folder)

    def _set_nodes(self, nodes: Sequence[NodeAddress]) -> None:
        """Other clients of the pool learn of it by the pool file."""
        if self._head:
            try:
                replace(self._pool, nodes=tuple(nodes)).write(self.folder)
            except OSError as error:
                log.error("other processes of the server do not learn of new nodes: %s", error)
        self.membership.set_nodes(nodes)

    @property
    def address(self) -> str:
        """See `Platform.address`: the run folder of the pool's head."""
        return str(self.folder)

    @property
    def state(self) -> State:
        """See `Platform.state`: one node is enough."""
        return "ok" if self.membership.callable() else "starting"

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """See `Platform.deploy`."""
        self.orders.deploy(specs)

    def remove(self, names: Sequence[str]) -> None:
        """See `Platform.remove`."""
        self.orders.remove(names)

    def check_fits(self, names: Sequence[str]) -> None:
        """See `Platform.check_fits`. Each node must hold those of the functions that it hosts."""
        self.orders.by_host(names, CheckFits)

    def invoke_many(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        """See `Platform.invoke_many`."""
        return self._fanout.run(calls, deadline, shared, meanwhile)

    def prewarm(self, names: Sequence[str]) -> None:
        """See `Platform.prewarm`: on the host that is called first."""
        self.orders.by_host(names, PrewarmFunctions)

    def stop(self, names: Sequence[str]) -> None:
        """See `Platform.stop`: on all nodes."""
        self.orders.check_known(names)
        self.orders.everywhere(StopFunctions(tuple(names)))

    def status(self) -> PoolStatus:
        """See `Platform.status`. A lost node counts with what it has done until its last heartbeat."""
        reports = self.orders.reports()
        gone = self.membership.meters.gone({link.incarnation for link, _ in reports})
        by_node = {link.name: report.pool for link, report in reports}
        return joined(by_node, gone, list(self.membership.hosts))

    def close(self) -> None:
        """See `Platform.close`."""
        self._parts.close()
