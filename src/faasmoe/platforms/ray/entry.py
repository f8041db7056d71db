"""The entry of the platform `ray` in the registry."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from faasmoe.platforms.cluster.pool_file import PoolFile, pools
from faasmoe.platforms.ray.discovery import RayDiscovery
from faasmoe.platforms.ray.options import RayOptions
from faasmoe.platforms.ray.platform import RayPlatform, wake
from faasmoe.platforms.registry import PlatformEntry

NAME = "ray"


def _start(options: RayOptions, preload: Sequence[str]) -> RayPlatform:
    pool = uuid.uuid4().hex
    discovery = RayDiscovery(pool, options, preload)
    file = PoolFile(platform=NAME, pool=pool, nodes=tuple(discovery.nodes()), identity=discovery.identity.folder)
    try:
        return RayPlatform(file, discovery)
    except BaseException:
        discovery.close()
        raise


ENTRY = PlatformEntry(
    name=NAME,
    options=RayOptions,
    start=_start,
    connect=RayPlatform.of_pool,
    running=lambda _: [str(folder) for folder in pools() if PoolFile.read(folder).platform == NAME],
    wake=wake,
)
