"""Decoding and prompts with experts on nodes, over the embedded platform on the same cores."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cluster import unencrypted
from benchmarks.cluster.nodes import cluster, embedded, first_core, last_core
from benchmarks.decode.peers import TASKS, take_turns
from benchmarks.figures import Figures
from benchmarks.peers import Task, Took


def measure_one_remote(model: Path, folder: Path, rounds: int) -> Figures:
    """All experts on one other node; instances of the embedded platform are held to that node's core."""
    ratios = _against_embedded(model, folder, [last_core()], rounds, ("decode", "prefill512"))
    return {"one_remote_decode_ratio": ratios["decode"], "one_remote_prefill_ratio": ratios["prefill512"]}


def measure_two_nodes(model: Path, folder: Path, rounds: int) -> Figures:
    """Experts on two nodes of one core each; the embedded platform has both cores."""
    ratios = _against_embedded(model, folder, [first_core(), last_core()], rounds, tuple(TASKS))
    return {f"two_nodes_vs_two_cores_{task}": ratio for task, ratio in ratios.items()}


def measure_tls(model: Path, folder: Path, rounds: int) -> Figures:
    """One sequence with all experts on one other node, with encrypted connections over such without."""
    node = [last_core()]
    with (
        cluster(folder / "encrypted", node) as one,
        cluster(folder / "bare", node, unencrypted.__name__) as other,
        unencrypted.connections_to([agent.address for agent in other.agents]),
        one.serving(model) as encrypted,
        other.serving(model) as bare,
    ):
        took = take_turns({"encrypted": encrypted.run, "bare": bare.run}, {"decode": TASKS["decode"]}, rounds)[
            "decode"
        ]
    ratios = [mine.decode / its.decode for mine, its in zip(took["encrypted"], took["bare"], strict=True)]
    return {"tls_cost_percent": 100 * (statistics.median(ratios) - 1)}


def _against_embedded(
    model: Path, folder: Path, cores: Sequence[int], rounds: int, tasks: Sequence[str]
) -> dict[str, float]:
    """Rates with a node on each of these cores over those of the embedded platform on the same cores, by task.

    The dense part is on the first core in either. Medians of the ratios of neighbouring runs.
    """
    chosen = {name: TASKS[name] for name in tasks}
    with cluster(folder, cores) as its, its.serving(model) as remote, embedded(model, cores) as local:
        took = take_turns({"local": local.run, "remote": remote.run}, chosen, rounds)
    return {
        name: statistics.median(
            _seconds(mine, chosen[name]) / _seconds(other, chosen[name])
            for mine, other in zip(its["local"], its["remote"], strict=True)
        )
        for name, its in took.items()
    }


def _seconds(took: Took, task: Task) -> float:
    return took.decode if task.tokens else took.prefill
