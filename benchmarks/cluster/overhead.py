"""What a call of another node costs beyond one of the embedded platform."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.cluster.nodes import cluster, embedded_platform, first_core, held_to, last_core
from benchmarks.figures import Figures
from benchmarks.platform.blocks import median_of, soon
from faasmoe.platforms.base import Call, FunctionSpec, Platform

ROUNDS = 7


def calling(platform: Platform, calls: Sequence[Call]) -> Callable[[], object]:
    return lambda: platform.invoke_many(calls, soon())


def measure_overhead(folder: Path, calls: int) -> Figures:
    """Empty calls, in turns: of a node with one core, by a client on another, and of the embedded platform on one core.

    The latter is what the node does of itself, so the difference is what the network and the way to it cost.
    """
    artifact = folder / "nothing"
    artifact.touch()
    specs = [FunctionSpec(f"empty-{i}", "benchmarks.functions:empty", artifact) for i in range(4)]
    four = [Call(spec.name, [b""]) for spec in specs]
    took: dict[str, list[float]] = {f"{where}_{n}": [] for where in ("local", "remote") for n in (1, 4)}
    node, home = last_core(), first_core()
    with cluster(folder / "nodes", [node]) as its, its.platform() as remote, embedded_platform([node]) as local:
        for platform in (local, remote):
            platform.deploy(specs)
            platform.invoke_many(four, soon())
        for _ in range(ROUNDS):
            for where, platform, core in (("local", local, node), ("remote", remote, home)):
                with held_to([core]):
                    for n in (1, 4):
                        took[f"{where}_{n}"].append(median_of(calling(platform, four[:n]), calls // ROUNDS, 1e6))
    medians = {name: statistics.median(values) for name, values in took.items()}
    return {
        "remote_call_overhead_us": medians["remote_1"] - medians["local_1"],
        "remote_fanout4_overhead_us": medians["remote_4"] - medians["local_4"],
        "local_call_us": medians["local_1"],
        "local_fanout4_us": medians["local_4"],
    }
