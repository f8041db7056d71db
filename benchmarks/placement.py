"""What planning of a cluster takes, and how even it is: 10, 100 and 1,000 nodes, two models, loads by Zipf's law.

    python -m benchmarks.placement [--skew 0.7] [--json FILE]

For each: seconds of a plan from nothing, of one in which nothing changes, of one for a node that was lost and one that
joined; the imbalance of all layers and by layer, over the best that any placement of the same copies could have; moves.
Then what replicas bring: what the slowest node of a layer reads over an even share, frames, and memory of replicas.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from random import Random
from time import perf_counter

from benchmarks.figures import Figures, report
from faasmoe.platforms.cluster.placement.imbalance import Imbalance, imbalance
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement
from faasmoe.platforms.cluster.placement.plan import plan
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy
from faasmoe.platforms.cluster.placement.routing_table import RoutingTable

MODELS = {"qwen_60x24": (60, 24, 17_300_000), "deepseek_256x61": (256, 61, 44_000_000)}
NODES = (10, 100, 1000)
ROOM = 1.3  # budgets over what functions take
TOP_K = 8
POLICIES = {
    "none": PlacementPolicy(replica_memory=0.0),
    "from_2_an_eighth": PlacementPolicy(),
    "from_1.5": PlacementPolicy(hot=1.5, replica_memory=1.0),
}
SMALL = 100_000  # bytes of a function that a node reads sooner than it is told to
LIMITS = {"deepseek_256x61_100_plan_s": 1.0}


def functions_of(experts: int, layers: int, memory: int, skew: float) -> list[Function]:
    """A function for each expert, with loads by Zipf's law in a random order in each layer."""
    random, functions = Random(1), []
    weights = [1 / (rank + 1) ** skew for rank in range(experts)]
    scale = memory * experts / sum(weights)
    for layer in range(layers):
        random.shuffle(weights)
        functions += [Function(f"{layer}.{i}", layer, memory, scale * w) for i, w in enumerate(weights)]
    return functions


def nodes_of(count: int, functions: Sequence[Function]) -> list[Node]:
    memory = int(ROOM * sum(f.memory for f in functions) / count) + 2 * functions[0].memory
    return [Node(f"node{i}", memory) for i in range(count)]


def best(functions: Sequence[Function], nodes: Sequence[Node], placement: Placement) -> Imbalance:
    """What no placement of these copies on equal nodes can be below."""
    shares: dict[int, list[float]] = {}
    for function in functions:
        copies = len(placement.hosts[function.name])
        shares.setdefault(function.layer, []).extend([function.load / copies] * copies)
    even = sum(map(sum, shares.values())) / len(nodes)
    layers = sum(_least(its, len(nodes)) for its in shares.values())
    return Imbalance(_least([s for its in shares.values() for s in its], len(nodes)) / even, layers / even)


def _least(shares: list[float], nodes: int) -> float:
    """The bound of the pigeonhole: of the k * nodes + 1 largest, k + 1 are on one node."""
    shares = sorted(shares, reverse=True)
    pigeons = (sum(shares[i - k : i + 1]) for k, i in enumerate(range(0, len(shares), nodes)))
    return max(sum(shares) / nodes, *pigeons)


def timed(work: Callable[[], Placement]) -> tuple[float, Placement]:
    began = perf_counter()
    placed = work()
    return perf_counter() - began, placed


def figures(name: str, functions: Sequence[Function], count: int) -> Iterator[tuple[str, float]]:
    *nodes, spare = nodes_of(count + 1, functions)
    seconds, first = timed(lambda: plan(functions, nodes))
    yield f"{name}_plan_s", seconds
    found, bound = imbalance(functions, nodes, first), best(functions, nodes, first)
    yield f"{name}_total", found.total
    yield f"{name}_total_over_best", found.total / bound.total
    yield f"{name}_layers", found.layers
    yield f"{name}_layers_over_best", found.layers / bound.layers
    yield f"{name}_replicas", sum(map(len, first.hosts.values())) - len(functions)
    seconds, again = timed(lambda: plan(functions, nodes, first))
    yield f"{name}_unchanged_s", seconds
    yield f"{name}_unchanged_moves", len(again.moves)
    left = {function: tuple(h for h in hosts if h != "node0") for function, hosts in first.hosts.items()}
    seconds, healed = timed(lambda: plan(functions, nodes[1:], Placement({f: h for f, h in left.items() if h})))
    yield f"{name}_lost_s", seconds
    yield f"{name}_lost_moves_over_hosted", len(healed.moves) / len(first.functions_of("node0"))
    seconds, joined = timed(lambda: plan(functions, [*nodes, spare], first))
    yield f"{name}_joined_s", seconds
    yield f"{name}_joined_moves_over_even", len(joined.moves) * (count + 1) / len(functions)
    yield f"{name}_joined_total", imbalance(functions, [*nodes, spare], joined).total
    random = Random(2)
    shifted = [replace(f, load=f.load * random.lognormvariate(0.0, 0.5)) for f in functions]
    seconds, moved = timed(lambda: plan(shifted, nodes, first))
    yield f"{name}_shifted_s", seconds
    yield f"{name}_shifted_moves_percent", 100 * len(moved.moves) / len(functions)
    yield f"{name}_shifted_layers_before", imbalance(shifted, nodes, first).layers
    yield f"{name}_shifted_layers", imbalance(shifted, nodes, moved).layers
    yield f"{name}_assign_us", 1e6 * assigning(functions, nodes, first)


def assigning(
    functions: Sequence[Function], nodes: Sequence[Node], placement: Placement, rounds: int = 2000
) -> float:
    """Seconds in which a client assigns the calls of one token in one layer, and notes their replies."""
    table, random = RoutingTable(), Random(3)
    table.route(placement.hosts)
    for node in nodes:
        table.take_in(node.name, 1)
    layer = [function for function in functions if function.layer == 0]
    tokens = [[(f.name, float(f.memory)) for f in random.sample(layer, TOP_K)] for _ in range(rounds)]
    began = perf_counter()
    for calls in tokens:
        for name, indexes in table.assign(calls).frames.items():
            table.replied(name, 1, sum(calls[index][1] for index in indexes))
    return (perf_counter() - began) / rounds


def fanouts(skew: float, steps: int = 200) -> Iterator[tuple[str, float]]:
    """Steps of one and of eight tokens of the small model on few nodes, by policy."""
    experts, _, memory = MODELS["qwen_60x24"]
    functions = functions_of(experts, 6, memory, skew)
    for count, tokens, (policy_name, policy) in product((2, 3, 8), (1, 8), POLICIES.items()):
        nodes = [replace(node, memory=2 * node.memory) for node in nodes_of(count, functions)]
        placed = plan(functions, nodes, policy=policy)
        name = f"fanout_{count}_nodes_{tokens}_tokens_{policy_name}"
        slowest, frames = fanout(functions, nodes, placed, tokens, steps, RoutingTable())
        yield f"{name}_slowest", slowest
        yield f"{name}_frames", frames
        yield f"{name}_memory_percent", 100 * (sum(map(len, placed.hosts.values())) / len(functions) - 1)
    small = [replace(function, memory=SMALL) for function in functions]
    nodes = nodes_of(3, small)
    placed = plan(small, nodes, policy=POLICIES["from_1.5"])
    for name, table in (("free", RoutingTable(frame=0.0)), ("weighed", RoutingTable())):
        yield f"fanout_small_frames_{name}", fanout(small, nodes, placed, 1, steps, table)[1]


def fanout(
    functions: Sequence[Function],
    nodes: Sequence[Node],
    placement: Placement,
    tokens: int,
    steps: int,
    table: RoutingTable,
) -> tuple[float, float]:
    """What the slowest node reads over an even share, and frames, both for a layer. Calls read weights once."""
    random, layers = Random(5), sorted({function.layer for function in functions})
    table.route(placement.hosts)
    for node in nodes:
        table.take_in(node.name, 1)
    slowest = even = frames = 0.0
    for step in range(steps):
        loads = {f.name: f.load for f in functions if f.layer == layers[step % len(layers)]}
        chosen = sorted({name for _ in range(tokens) for name in draw(random, loads, 4)})
        calls = [(name, float(functions[0].memory)) for name in chosen]
        assigned = table.assign(calls).frames
        works = {name: sum(calls[index][1] for index in indexes) for name, indexes in assigned.items()}
        for name, work in works.items():
            table.replied(name, 1, work)
        slowest += max(works.values())
        even += sum(works.values()) / min(len(nodes), len(calls))
        frames += len(works)
    return slowest / even, frames / steps


def draw(random: Random, loads: dict[str, float], count: int) -> set[str]:
    """Experts of one token, by their loads."""
    chosen: set[str] = set()
    while len(chosen) < count:
        chosen.update(random.choices(list(loads), list(loads.values())))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skew", type=float, default=0.7, help="exponent of Zipf's law; 0 is uniform")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    found: Figures = {}
    for model, (experts, layers, memory) in MODELS.items():
        functions = functions_of(experts, layers, memory, arguments.skew)
        for count in NODES:
            found |= dict(figures(f"{model}_{count}", functions, count))
    found |= dict(fanouts(arguments.skew))
    report(found, LIMITS, arguments.json)


if __name__ == "__main__":
    main()
