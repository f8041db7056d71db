"""The entry of the platform `nodes` in the registry."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.cluster.client.pool_file import PoolFile, pools
from faasmoe.platforms.nodes.options import NodesOptions
from faasmoe.platforms.registry import PlatformEntry

NAME = "nodes"


def _start(options: NodesOptions, _: Sequence[str]) -> ClusterPlatform:
    """Agents have preloaded what functions need."""
    discovery = options.discovery()
    nodes = tuple(discovery.nodes())
    secret = Path(options.secret_file).absolute()
    pool = PoolFile(platform=NAME, pool=uuid.uuid4().hex, nodes=nodes, secret=secret)
    return ClusterPlatform(pool, discovery)


ENTRY = PlatformEntry(
    name=NAME,
    options=NodesOptions,
    start=_start,
    connect=ClusterPlatform.of_pool,
    running=lambda _: list(map(str, pools())),
)
