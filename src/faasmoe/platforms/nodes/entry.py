"""The entry of the platform `nodes` in the registry."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.cluster.pool_file import PoolFile, pools
from faasmoe.platforms.nodes.node_discovery import NodeDiscovery
from faasmoe.platforms.nodes.options import NodesOptions
from faasmoe.platforms.registry import PlatformEntry

NAME = "nodes"


def _start(options: NodesOptions, _: Sequence[str]) -> ClusterPlatform:
    """Agents have preloaded what functions need."""
    folder = ClusterFolder.of(options.cluster_folder)
    discovery = NodeDiscovery(options, folder)
    try:
        nodes = tuple(discovery.first())
        pool = PoolFile(platform=NAME, pool=uuid.uuid4().hex, nodes=nodes, identity=folder.server.folder)
        names = options.orchestrator_nodes
        hosting = (names, Authority(folder.path).certify_orchestrator) if names else None
        return ClusterPlatform(pool, discovery, hosting=hosting)
    except BaseException:
        discovery.close()
        raise


ENTRY = PlatformEntry(
    name=NAME,
    options=NodesOptions,
    start=_start,
    connect=ClusterPlatform.of_pool,
    nodes=lambda platform: platform.orchestrator_nodes,
    running=lambda _: list(map(str, pools())),
)
