"""What the embedded platform costs: calls, cold starts, memory. Prints a table with the limits beside the figures."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.figures import Figures, report
from benchmarks.platform.blocks import make_blocks, soon
from benchmarks.platform.calls import measure_calls, measure_experts, measure_prefill
from benchmarks.platform.cold import measure_cold, measure_deployment, measure_import, to_zero
from benchmarks.platform.memory import measure_budget, measure_private, measure_zero
from benchmarks.pool import local_pool
from faasmoe.engine.experts.dispatch import write_functions
from faasmoe.platforms.base import Call, FunctionSpec

LIMITS = {
    "warm_call_us": 80,
    "fanout4_us": 150,
    "fanout4_expert_ratio": 1.2,
    "cold_start_ms": 4,
    "cold_start_disk_ratio": 1.4,
    "from_zero_ms": 250,
    "import_ms": 40,
    "instance_private_mb": 2,
    "zygote_mb": 30,
    "deploy_1440_s": 2,
    "idle_cpu_percent": 1,
    "zero_pool_mb": 80,
    "budget_overshoot_percent": 5,
    "prefill_bytes_copied_ratio": 2,
}


def measure(folder: Path, calls: int, starts: int) -> Figures:
    blocks = make_blocks(folder, 16)
    figures: Figures = {}
    console = Console(stderr=True)
    with local_pool() as platform:
        platform.deploy([FunctionSpec("first", "benchmarks.functions:empty", folder)])
        platform.invoke_many([Call("first", [b""])], soon())
        to_zero(platform, "first")
        own = platform.status().memory_used
        platform.deploy(write_functions(blocks, folder / "artifacts"))
        steps: dict[str, Callable[[], Figures]] = {
            "calls": lambda: measure_calls(platform, folder, calls),
            "experts": lambda: measure_experts(platform, folder, blocks),
            "private memory": lambda: measure_private(platform, blocks),
            "cold starts": lambda: measure_cold(platform, blocks, starts),
            "prefill": lambda: measure_prefill(platform, folder),
            "deployment": lambda: measure_deployment(platform, folder),
            "imports": lambda: measure_import(20),
        }
        for name, step in steps.items():
            with console.status(name):
                figures |= step()
    with console.status("budget"):
        figures |= measure_budget(folder, blocks, own, 15)
    with console.status("scale to zero"):
        figures |= measure_zero(folder, blocks, 7)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000, help="empty calls to take the median of")
    parser.add_argument("--starts", type=int, default=50, help="cold starts to take the median of")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.calls, options.starts)
    report(figures, LIMITS, options.json)


if __name__ == "__main__":
    main()
