"""Functions on several nodes, beside the same functions on one machine: calls, a model's rates, and what a loss costs.

Nodes are namespaces of this machine with addresses of their own and one core each; it takes root and two cores. The
model is that of `benchmarks.decode` (Qwen1.5-MoE-A2.7B's geometry, 4 layers), made in --folder if it is not there.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from tests.machines import missing

from benchmarks.cluster.losses import measure_drain, measure_kill, measure_kills, measure_partition
from benchmarks.cluster.overhead import measure_overhead
from benchmarks.cluster.ratios import measure_one_remote, measure_two_nodes
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
}
AT_LEAST = {name for name in LIMITS if name.startswith(("one_remote", "two_nodes"))}
MODEL = "qwen1.5-moe-a2.7b-4"


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[ClusterPlatform]:
    """A client of so many agents."""
    keys, nodes = folder / "cluster", folder / f"nodes-{count}"
    with ExitStack() as stack:
        addresses = [stack.enter_context(agent(keys, f"node-{i}")) for i in range(count)]
        nodes.write_text("\n".join(addresses))
        yield stack.enter_context(start("nodes", PRELOAD, nodes_file=str(nodes), cluster_folder=str(keys)))


@contextmanager
def agent(keys: Path, name: str) -> Iterator[str]:
    """An agent, and where it listens."""
    command = [sys.executable, "-m", "faasmoe.cli.main", "node", "--name", name, "--listen", "127.0.0.1:0"]
    command += ["--cluster-folder", str(keys), "--log-level", "warning"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        found = re.search(r"listens on (\S+)", process.stdout.readline() if process.stdout else "")
        try:
            if found is None:
                raise RuntimeError("the agent did not start")
            yield found[1]
        finally:
            process.terminate()


def measure_overhead(folder: Path, calls: int) -> Figures:
    """Empty calls of one node and of the embedded platform, in turns."""
    artifact = folder / "nothing"
    artifact.touch()
    specs = [FunctionSpec(f"empty-{i}", "benchmarks.functions:empty", artifact) for i in range(4)]
    four = [Call(spec.name, [b""]) for spec in specs]
    took: dict[str, list[float]] = {f"{where}_{n}": [] for where in ("local", "remote") for n in (1, 4)}
    with start("local", PRELOAD) as local, cluster(folder, 1) as remote:
        platforms: dict[str, Platform] = {"local": local, "remote": remote}
        for platform in platforms.values():
            platform.deploy(specs)
            platform.invoke_many(four, soon())
        for _ in range(7):
            for where, platform in platforms.items():
                for n in (1, 4):
                    took[f"{where}_{n}"].append(
                        median_of(lambda p=platform, n=n: p.invoke_many(four[:n], soon()), calls // 7, 1e6)
                    )
    medians = {name: statistics.median(values) for name, values in took.items()}
    return {
        "remote_call_overhead_us": medians["remote_1"] - medians["local_1"],
        "remote_fanout4_overhead_us": medians["remote_4"] - medians["local_4"],
        "local_call_us": medians["local_1"],
        "local_fanout4_us": medians["local_4"],
    }


def measure_traffic(folder: Path, blocks: Sequence[Block], tokens: int) -> Figures:
    """Frames and bytes of a layer whose experts are on two nodes, beside the least that replies by block need."""
    torch.manual_seed(0)
    index = torch.stack([torch.randperm(EXPERTS)[:TOP_K] for _ in range(tokens)])
    hidden, weight = torch.randn(tokens, HIDDEN).bfloat16(), torch.rand(tokens, TOP_K)
    with cluster(folder, 2) as platform:
        platform.deploy(write_functions(blocks, folder / "artifacts"))
        dispatch = Dispatch(platform, blocks)
        before = {link.name: report.traffic for link, report in platform.orders.reports()}
        dispatch(0, hidden, index, weight)
        after = {link.name: report.traffic for link, report in platform.orders.reports()}
        hosts = platform.membership.hosts
    frames = max(after[node].frames - before[node].frames for node in after)
    seen = sum(after[n].received + after[n].sent - before[n].received - before[n].sent for n in after)
    by_block = by_node = least = 0
    for node in after:
        its = {e for b in blocks if node in hosts[b.name] for e in b.artifact.experts}
        rows = sum(bool(its & set(row.tolist())) for row in index)
        least += rows * HIDDEN * hidden.element_size()
        by_node += reply_bytes(rows, HIDDEN) if rows else 0
    for block in blocks:
        rows = sum(bool(set(block.artifact.experts) & set(row.tolist())) for row in index)
        by_block += reply_bytes(rows, HIDDEN) if rows else 0
        least += rows * ROW
    least += index.numel() * SLOT
    return {
        "frames_per_node_layer": frames,
        f"bytes_ratio_{tokens}": seen / (least + by_block),
        f"bytes_{tokens}": seen,
        f"reply_bytes_by_block_{tokens}": by_block,
        f"reply_bytes_by_node_{tokens}": by_node,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/faasmoe/benchmarks")
    parser.add_argument("--calls", type=int, default=7000, help="empty calls to take the median of")
    parser.add_argument("--rounds", type=int, default=5, help="of each rate")
    parser.add_argument("--seconds", type=float, default=300, help="of load with a kill every 30 s")
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
