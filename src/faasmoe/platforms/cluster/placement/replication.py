"""How many replicas a function has, by its load."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import ceil

from faasmoe.platforms.cluster.placement.occupancy import effective_loads, layer_means
from faasmoe.platforms.cluster.placement.placement import Function
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy


def replicate(
    functions: Sequence[Function], present: Sequence[int], nodes: int, policy: PlacementPolicy
) -> list[int]:
    """Return how many replicas each function is to have, given how many it has.

    As `replicate_experts` of DeepSeek's EPLB, the function of the most load for a replica gets the next one, as far as
    the memory for replicas goes. Unlike there, only hot functions get any, however much memory there is: a replica that
    serves nobody is overhead. One that is there stays until its function is `cold`.
    """
    loads = effective_loads(functions)
    means = layer_means(functions, loads)
    left = policy.replica_memory * sum(function.memory for function in functions)
    counts, wanted = [1] * len(functions), [1] * len(functions)
    heap = []

    def next_one(index: int) -> tuple[float, int]:
        """The load of a replica before there is one more. Those that are there count for more than those to come."""
        load = loads[index] / counts[index]
        return -(load / policy.cold if counts[index] < present[index] else load), index

    for index, function in enumerate(functions):
        hot = policy.hot * means[function.layer]
        wanted[index] = _wanted(loads[index], hot, present[index], policy.cold, nodes)
        if wanted[index] > 1:
            heap.append(next_one(index))
    heapq.heapify(heap)
    while heap:
        _, index = heapq.heappop(heap)
        if functions[index].memory <= left:
            left -= functions[index].memory
            counts[index] += 1
            if counts[index] < wanted[index]:
                heapq.heappush(heap, next_one(index))
    return counts


def _wanted(load: float, hot: float, present: int, cold: float, nodes: int) -> int:
    """As many that none has more than `hot`; fewer than present only if none would have more than its part `cold`."""
    if load <= 0 or hot * cold <= 0:  # the least numbers have no fractions
        return 1
    fewest, most = ceil(load / hot), ceil(load / (hot * cold))
    return max(1, min(max(fewest, min(present, most)), nodes))
