"""How much arithmetic can one core do, and how much of it do kernels reach?

Runs nothing but independent operations on registers, a tenth of a second at a time: multiplying and adding float32,
and, where the processor has it, adding up products of bfloat16 (what `model.dense.linear.matvec` and oneDNN use there).
In turns with them, a linear layer over 512 rows on our kernel and on oneDNN's. Prints the best of the rounds in
GFLOP/s.

    python -m benchmarks.peak
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import linear

from faasmoe.experts.kernels.library import INT, LIBRARY
from faasmoe.model.dense.linear.matvec import linear_rows

SHAPE, ROWS = (1408, 2048), 512  # an expert's layer of Qwen1.5-MoE
SUMS = 12  # of `c/base/limits.c`
TIMES = 20_000_000 // SUMS  # an eighth of a second or less


def gigaflops(run: Callable[[], object], operations: int) -> float:
    start = time.thread_time()  # not what other processes take of the core
    run()
    return operations / (time.thread_time() - start) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=ROWS, help="of the linear layers")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, weight = torch.randn(options.rows, SHAPE[1]).bfloat16(), torch.randn(SHAPE).bfloat16()
    layer = 2 * options.rows * SHAPE[0] * SHAPE[1]
    kinds: dict[str, tuple[Callable[[], object], int]] = {
        f"ours, {options.rows} rows": (partial(linear_rows, x, weight), layer),
        f"oneDNN, {options.rows} rows": (partial(linear, x, weight), layer),
    }
    for name, label in (("multiply_float32", "multiply and add float32"),
                        ("multiply_bfloat16", "add up products of bfloat16")):  # fmt: skip
        function = LIBRARY.function(name, INT, result=INT)
        if products := function(1):
            kinds[label] = partial(function, TIMES), 2 * products * TIMES * SUMS
    best = dict.fromkeys(kinds, 0.0)
    for kind in kinds.values():
        gigaflops(*kind)  # starts threads
    for _ in range(options.rounds):
        for name, kind in kinds.items():
            best[name] = max(best[name], gigaflops(*kind))
    table = Table("what", "GFLOP/s of one core", title=f"instruction set {LIBRARY.instruction_set}")
    for name, rate in best.items():
        table.add_row(name, f"{rate:.0f}")
    Console().print(table)
    if options.json:
        with open(options.json, "w") as stream:
            json.dump({"gigaflops": best}, stream)


if __name__ == "__main__":
    main()
