"""Functions on several nodes, beside the same functions on one machine: calls, a model's rates, and what a loss costs.

Nodes are namespaces of this machine with addresses of their own and one core each; it takes root and two cores. The
model is that of `benchmarks.decode` (Qwen1.5-MoE-A2.7B's geometry, 4 layers), made in --folder if it is not there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from tests.machines import missing

from benchmarks.cluster import weights
from benchmarks.cluster.losses import measure_drain, measure_kill, measure_kills, measure_partition
from benchmarks.cluster.orchestrators import measure_orchestrators
from benchmarks.cluster.overhead import measure_overhead
from benchmarks.cluster.planned import measure_planned
from benchmarks.cluster.ratios import measure_one_remote, measure_tls, measure_two_nodes
from benchmarks.cluster.traffic import measure_traffic
from benchmarks.decode.models import make, read_again
from benchmarks.figures import Figures, report

LIMITS = {
    "remote_call_overhead_us": 60,
    "remote_fanout4_overhead_us": 60,
    "frames_per_node_layer": 1,
    "bytes_ratio_1": 1.1,
    "bytes_ratio_512": 1.1,
    "one_remote_decode_ratio": 0.95,
    "one_remote_prefill_ratio": 0.97,
    "two_nodes_vs_two_cores_decode": 0.9,
    "two_nodes_vs_two_cores_batch8": 0.9,
    "two_nodes_vs_two_cores_prefill512": 0.9,
    "two_orchestrators_vs_two_cores": 0.9,
    "tls_cost_percent": 3,
    "node_kill_stall_s": 2,
    "node_kill_failed": 0,
    "node_kill_differing": 0,
    "replica_kill_stall_s": 0.5,
    "replica_kill_failed": 0,
    "replica_kill_differing": 0,
    "partition_stall_s": 2,
    "partition_failed": 0,
    "partition_differing": 0,
    "kills_throughput_loss_percent": 2,
    "kills_failed": 0,
    "kills_differing": 0,
    "drain_failed": 0,
    "drain_s": 10,
    **weights.LIMITS,
}
AT_LEAST = {name for name in LIMITS if name.startswith(("one_remote", "two_"))}
MODEL = "qwen1.5-moe-a2.7b-4"


PARTS: dict[str, Callable[[Path, Path, argparse.Namespace], Figures]] = {
    "overhead": lambda _, folder, given: measure_overhead(folder, given.calls),
    "traffic": lambda _, folder, __: measure_traffic(folder),
    "one_remote": lambda model, folder, given: measure_one_remote(model, folder, given.rounds),
    "two_nodes": lambda model, folder, given: measure_two_nodes(model, folder, given.rounds),
    "orchestrators": lambda model, folder, given: measure_orchestrators(model, folder, given.rounds),
    "tls": lambda model, folder, given: measure_tls(model, folder, given.rounds),
    "planned": lambda model, folder, given: measure_planned(model, folder, given.rounds),
    "kill": lambda model, folder, _: measure_kill(model, folder),
    "partition": lambda model, folder, _: measure_partition(model, folder),
    "kills": lambda model, folder, given: measure_kills(model, folder, given.seconds),
    "drain": lambda model, folder, _: measure_drain(model, folder),
    "weights": lambda _, folder, __: weights.measure_weights(folder),
}
BARE = {"overhead", "traffic", "weights"}  # which need no model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/faasmoe/benchmarks")
    parser.add_argument("--calls", type=int, default=7000, help="empty calls to take the median of")
    parser.add_argument("--rounds", type=int, default=5, help="of each rate")
    parser.add_argument(
        "--seconds", type=float, default=300, help="of load with a kill every 30 s; as many without"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    if why := missing():
        parser.error(why)
    torch.set_num_threads(1)
    model, figures = options.folder / MODEL, Figures()
    if not BARE.issuperset(options.only):
        options.folder.mkdir(parents=True, exist_ok=True)
        make(model, "--layers", "4")
    try:
        for part in options.only:
            read_again(model.glob("*.safetensors") if part not in BARE else ())
            with tempfile.TemporaryDirectory() as name:
                figures |= PARTS[part](model, Path(name), options)
    finally:  # parts take minutes: what one has measured is told if the next one fails
        report(figures, LIMITS, options.json, at_least=AT_LEAST)


if __name__ == "__main__":
    main()
