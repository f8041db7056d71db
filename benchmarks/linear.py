"""Which kernel runs a linear layer faster for few rows: oneDNN's or torch's own?

Prints GB/s of weights read, the median over rounds that alternate between the two. The layer is larger than
the caches, as weights are when every token uses other experts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

SHAPE = (5632, 2048)  # Qwen1.5-MoE's shared expert
COPIES = 20  # so that no weight is still in a cache when its turn comes again


def gigabytes_per_second(rows: int, onednn: bool, rounds: int) -> list[float]:
    weights = [torch.randn(SHAPE).bfloat16() for _ in range(COPIES)]
    x = torch.randn(rows, SHAPE[1]).bfloat16()
    torch._C._set_mkldnn_enabled(onednn)
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        for weight in weights:
            torch.nn.functional.linear(x, weight)
        rates.append(sum(w.nbytes for w in weights) / (time.perf_counter() - start) / 1e9)
    torch._C._set_mkldnn_enabled(True)
    return rates[1:]  # the first round warms up


def measure(rows: int, rounds: int) -> dict[str, float]:
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for onednn in (True, False):
            rates[onednn] += gigabytes_per_second(rows, onednn, 3)
    return {"rows": rows, "onednn": statistics.median(rates[True]), "own": statistics.median(rates[False])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = [measure(rows, options.rounds) for rows in (1, 2, 4, 8)]
    table = Table("rows", "oneDNN GB/s", "torch's own GB/s", title=f"{options.threads} threads, bfloat16")
    for figure in figures:
        table.add_row(str(figure["rows"]), f"{figure['onednn']:.1f}", f"{figure['own']:.1f}")
    Console().print(table)
    if options.json:
        with open(options.json, "w") as stream:
            json.dump({"threads": options.threads, "shape": SHAPE, "figures": figures}, stream)


if __name__ == "__main__":
    main()
