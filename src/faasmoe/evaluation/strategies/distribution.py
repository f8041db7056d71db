"""A dense part for each tenant, and all experts in one local server that is always on (`local-distribution`).

In the paper each tenant has a process of its own with the model's dense part, and all of them call one server on the
same machine that holds every expert and never stops. Here a tenant's process is our engine, and the server is a pool of
functions: one for each layer, with all of its experts, started before the first request and kept for good. Two things
are better than in the paper, and make this harder to beat: dense weights are mapped, so that tenants share their pages,
and calls use the machine's shared memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from faasmoe.evaluation.strategies.host import one_for_each, play_on_each
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.strategies.registry import DENSE_PART, Player
from faasmoe.platforms.registry import find
from faasmoe.util.folders.run_folder import RunFolder

_FOR_GOOD = 7 * 86400.0  # seconds


@contextmanager
def serve(orders: Orders) -> Iterator[Player]:
    """Starts the pool and a process for each tenant. This one does nothing but pass requests on."""
    find(orders.platform).require_connect(orders.strategy)
    with RunFolder() as folder, orders.start_platform(keep_alive=_FOR_GOOD) as pool:
        parts = msgspec.structs.replace(
            orders, strategy=DENSE_PART, pool=pool.address, artifacts=str(folder.path / "artifacts")
        )
        with one_for_each(orders.tenants, parts) as hosts:
            pool.prewarm([function.name for function in pool.status().functions])
            yield partial(play_on_each, hosts)
