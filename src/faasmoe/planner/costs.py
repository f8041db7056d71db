"""What steps cost under one setting: of reading, computing and calling, on one machine or over nodes."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np

from faasmoe.engine.experts.grouping import WORTH_SPLITTING, Grouping
from faasmoe.planner.cluster import unevenness
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.routing import GRID, Array, untouched
from faasmoe.planner.simulation import Costs


def least_bytes(given: Conditions, block_size: int) -> int:
    """Bytes of the instances that one token needs in the layer that needs most."""
    own = given.overheads.instance_bytes
    needs = []
    for layer in given.shape.layers:
        instances = [size * layer.expert_bytes + own for size in given.shape.block_sizes(layer, block_size)]
        needs.append(sum(sorted(instances, reverse=True)[: layer.top_k]))
    return max(needs)


def step_costs(given: Conditions, setting: Setting) -> Costs:
    """The costs of steps, for `simulate`.

    With nodes, experts are read and computed on all of them at once, for as long as the most loaded one takes; each
    layer takes a round trip more, and each token the time of its rows on the wire.
    """
    shape, machine, cluster = given.shape, given.machine, given.cluster
    nodes, layers = cluster.nodes if cluster else 1, len(shape.layers)
    functions = untouched(shape, setting.block_size, given.activations)
    experts = untouched(shape, 1, given.activations)
    layer = shape.layers[0]
    dense = shape.dense_bytes - shape.table_bytes
    weights = dense + sum(each.top_k * each.expert_bytes for each in shape.layers) / nodes
    block = min(setting.block_size, layer.experts) * layer.expert_bytes
    room = cluster.nodes * cluster.memory if cluster else given.memory - shape.dense_bytes
    cached = room >= shape.expert_bytes  # files stay in the page cache
    load = 0.0 if cached else block / machine.disk
    falling = -functions.apart  # np.interp wants what rises
    return Costs(
        functions=functions.apart,
        functions_together=functions.together,
        alike=np.interp(-functions.together, falling, GRID),
        experts=experts.apart,
        busiest=_busiest(experts.apart, layer.experts, layers, nodes),
        split=_split(layer.experts, layer.top_k, setting.block_size, layer.expert_bytes, machine.cores),
        layers=layers,
        fixed_seconds=layers * (machine.layer + (cluster.round_trip if cluster else 0))
        + dense / machine.bandwidth,
        expert_seconds=layer.expert_bytes / machine.bandwidth / nodes,
        token_seconds=2 * weights / shape.bytes_per_weight / machine.operations,
        wire_seconds=layers * cluster.wire_seconds(shape.width, layer.top_k) if cluster else 0.0,
        call_seconds=machine.call,
        sequence_seconds=layers * machine.sequence,
        cold_seconds=machine.cold_start + load,
        cold_serial_seconds=machine.fork + load,
        cores=nodes * machine.cores,
    )


def _busiest(untouched_experts: Array, experts: int, layers: int, nodes: int) -> Array:
    """The curve of experts with those that a step touches counted as if all nodes had as many as the busiest."""
    if nodes == 1:
        return untouched_experts
    touched = untouched_experts[0] - untouched_experts
    factor = np.interp(touched / layers, *unevenness(experts, nodes))
    busiest: Array = untouched_experts[0] - touched * factor
    return busiest


@lru_cache(maxsize=64)
def _split(experts: int, top_k: int, block_size: int, expert_bytes: int, cores: int) -> float:
    """Calls for each function that one token touches: dispatch divides the work of large experts over cores."""
    if expert_bytes < WORTH_SPLITTING:
        return 1.0
    sizes = [min(block_size, experts - start) for start in range(0, experts, block_size)]
    grouping, draw = Grouping(sizes, cores), random.Random(0)
    parts, functions = 0, 0
    for _ in range(500):
        chosen = draw.sample(range(experts), top_k)
        parts += len(grouping.parts([chosen], [[1.0] * top_k]))
        functions += len({expert // block_size for expert in chosen})
    return parts / functions
