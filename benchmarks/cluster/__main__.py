"""What functions on another node cost beyond the embedded platform: calls, fan-outs, frames and bytes of a layer.

Agents run on this machine and are called over loopback, so the wire itself costs nothing here.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from benchmarks.figures import Figures, report
from benchmarks.platform.blocks import HIDDEN, make_blocks, median_of, soon
from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.experts import PRELOAD
from faasmoe.experts.payload import reply_bytes
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.base import Call, FunctionSpec, Platform
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.registry import start

LIMITS = {
    "remote_call_overhead_us": 60,
    "remote_fanout4_overhead_us": 60,
    "frames_per_node_layer": 1,
    "bytes_ratio_1": 1.1,
    "bytes_ratio_512": 1.1,
}
EXPERTS, TOP_K = 16, 4
SLOT, ROW = 12, 4  # bytes of a slot, and of a row's number


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[ClusterPlatform]:
    """A client of so many agents."""
    secret, nodes = folder / "secret", folder / f"nodes-{count}"
    secret.touch(0o600)
    secret.write_text(secrets.token_hex(32))
    with ExitStack() as stack:
        addresses = [stack.enter_context(agent(secret, f"node-{i}")) for i in range(count)]
        nodes.write_text("\n".join(addresses))
        yield stack.enter_context(start("nodes", PRELOAD, nodes_file=str(nodes), secret_file=str(secret)))


@contextmanager
def agent(secret: Path, name: str) -> Iterator[str]:
    """An agent, and where it listens."""
    command = [sys.executable, "-m", "faasmoe.cli.main", "node", "--name", name, "--listen", "127.0.0.1:0"]
    command += ["--secret-file", str(secret), "--log-level", "warning"]
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=7000, help="empty calls to take the median of")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures |= measure_overhead(folder, options.calls)
        blocks = make_blocks(folder, EXPERTS, block_size=2)
        for tokens in (1, 512):
            figures |= measure_traffic(folder, blocks, tokens)
    report(figures, LIMITS, options.json)


if __name__ == "__main__":
    main()
