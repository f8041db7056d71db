"""The nodes of a cluster, for planning: their memory, their network, and how evenly experts load them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_DRAWS = 200
_POINTS = 24  # numbers of experts at which the most loaded node is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterShape:
    """Nodes that run functions. The orchestrators run on another machine, and call them over its link.

    The round trip is that of `benchmarks.cluster` on loopback: `remote_call_overhead_us`, and what a network adds.
    """

    nodes: int
    memory: int  # bytes of each
    bandwidth: float = 1.25e9  # bytes a second of the orchestrators' link
    round_trip: float = 0.2e-3  # seconds of a layer beyond those of calls on the machine itself

    def wire_seconds(self, width: int, top_k: int) -> float:
        """Seconds of a token in one layer: rows to the nodes that it touches, and sums back (`cluster.protocol`).

        Rows of `width` numbers are bfloat16, and sums, one for each block at most, float32.
        """
        return width * (2 * min(self.nodes, top_k) + 4 * top_k) / self.bandwidth


@lru_cache(maxsize=64)
def unevenness(experts: int, nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much longer a layer lasts than if its load were even: numbers of touched experts, and the factor for each.

    The experts of a layer are spread evenly, and those that a step touches are drawn: the layer lasts as long as its
    most loaded node. Nodes beyond the number of experts have nothing to do.
    """
    hosted = np.array([len(part) for part in np.array_split(np.arange(experts), nodes)])
    draw = np.random.default_rng(0)
    touched = np.unique(np.round(np.geomspace(1, experts, min(experts, _POINTS)))).astype(int)
    busiest = [
        draw.multivariate_hypergeometric(hosted, count, size=_DRAWS, method="marginals").max(1).mean()
        for count in touched
    ]
    return touched.astype(float), np.array(busiest) * nodes / touched
