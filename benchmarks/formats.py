"""How fast do our kernels multiply rows of x by weights in each weight format?

Prints GB/s of the bytes that a weight really takes, scales included, and GFLOP/s, on one core: medians over rounds that
alternate between formats. A layer is larger than the caches, as weights are when every token uses other experts; with
`--cached` it fits the second cache instead, which tells what the arithmetic allows. The ceiling is the rate at which
one core reads the same bytes. Codes are random.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from faasmoe.experts.arrays import address
from faasmoe.experts.dtypes import narrowed
from faasmoe.experts.formats.base import Matrix
from faasmoe.experts.formats.fp8 import Fp8Matrix
from faasmoe.experts.formats.gguf import q8_0
from faasmoe.experts.formats.gguf.base import GgufMatrix
from faasmoe.experts.formats.grouped_int4 import GroupedInt4Matrix
from faasmoe.experts.formats.int4 import Int4Matrix
from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.experts.formats.mxfp4 import Mxfp4Matrix
from faasmoe.experts.formats.nvfp4 import Nvfp4Matrix
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.kernels.library import ADDRESS, FLOAT, INT, LIBRARY
from faasmoe.model.dense.linear.linear_group import Layers
from faasmoe.model.dense.linear.team import Team

INS = 2880  # of gpt-oss
OUTS, CACHED_OUTS = 5760, 192  # gpt-oss's gate and up; half a megabyte in eight bits
COPIES = 6  # of a large layer, so that no weight is still in a cache when its turn comes again
ROWS = (1, 2, 4, 8, 64)

read_all = LIBRARY.function("read_all", ADDRESS, INT, result=FLOAT)
random = np.random.default_rng(0)


def codes(*shape: int) -> NDArray[np.uint8]:
    return random.integers(0, 256, shape, np.uint8)


def numbers_of_e4m3(*shape: int) -> NDArray[np.uint8]:
    found = codes(*shape)
    return np.where(found & 0x7F == 0x7F, 1, found).astype(np.uint8)


def small(outs: int) -> NDArray[np.float32]:
    return random.standard_normal((outs, INS), np.float32)


MAKE: dict[str, Callable[[int], Matrix]] = {
    "bfloat16": lambda outs: narrowed(small(outs)),
    "int8": lambda outs: Int8Matrix.nearest(small(outs)),
    "int4": lambda outs: Int4Matrix.nearest(np.tile(small(48), (outs // 48, 1))),
    "grouped_int4": lambda outs: GroupedInt4Matrix(
        codes(outs, INS // 2), random.random((outs, INS // 64), np.float32), codes(outs, INS // 64) // 16
    ),
    "q8_0": lambda outs: GgufMatrix(q8_0.FORMAT.layout, codes(outs, INS // 32 * 34)),
    "mxfp4": lambda outs: Mxfp4Matrix.of(codes(outs, INS // 32, 16), codes(outs, INS // 32) // 16 + 110),
    "nvfp4": lambda outs: Nvfp4Matrix.of(
        codes(outs, INS // 2), numbers_of_e4m3(outs, INS // 16), np.full(1, 0.5, np.float32)
    ),
    "fp8, blocks": lambda outs: Fp8Matrix.of(
        numbers_of_e4m3(outs, INS), random.random((-(-outs // 128), -(-INS // 128)), np.float32)
    ),
    "fp8, rows": lambda outs: Fp8Matrix.of(numbers_of_e4m3(outs, INS), random.random((outs, 1), np.float32)),
}


def seconds(run: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def reader(weight: Matrix) -> Callable[[], object]:
    first = format_of(weight).arrays(weight)[0]
    return lambda: read_all(address(first), first.nbytes)


def measure(names: list[str], outs: int, copies: int, budget: float) -> dict[str, dict[str, float]]:
    """For each format and number of rows, and for `read`: seconds a layer, the median."""
    team, weights = Team(1), {name: [MAKE[name](outs) for _ in range(copies)] for name in names}
    layers = {name: [Layers((weight, None)) for weight in its] for name, its in weights.items()}
    xs = {rows: torch.randn(rows, INS).bfloat16() for rows in ROWS}
    times: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    repeats = 1 if copies > 1 else 10
    end = time.perf_counter() + budget
    while time.perf_counter() < end:
        for name in names:
            for weight in weights[name]:
                times[name].setdefault("read", []).append(seconds(reader(weight), repeats))
            for rows, x in xs.items():
                for layer in layers[name]:
                    took = seconds(partial(team.run, layer, x), repeats)
                    times[name].setdefault(f"{rows}", []).append(took)
    return {name: {key: statistics.median(took) for key, took in its.items()} for name, its in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(MAKE)}; all by default")
    parser.add_argument("--seconds", type=float, default=30, help="for all rounds together")
    parser.add_argument("--cached", action="store_true", help="a layer that fits the second cache")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    if unknown := set(options.formats) - set(MAKE):
        parser.error(f"no format {', '.join(sorted(unknown))}: must be of {', '.join(MAKE)}")
    torch.set_num_threads(1)
    outs, copies = (CACHED_OUTS, 1) if options.cached else (OUTS, COPIES)
    names = options.formats or list(MAKE)
    sizes = {name: MAKE[name](outs).nbytes for name in names}
    times = measure(names, outs, copies, options.seconds)
    title = f"GB/s of weights by rows of x, and GFLOP/s with {ROWS[-1]} of them"
    table = Table("format", "bits", "reading", *map(str, ROWS), "GFLOP/s", title=title)
    for name, its in times.items():
        rates = [f"{sizes[name] / took / 1e9:.1f}" for took in (its["read"], *(its[f"{rows}"] for rows in ROWS))]
        flops = 2 * ROWS[-1] * outs * INS / its[f"{ROWS[-1]}"]
        table.add_row(name, f"{8 * sizes[name] / outs / INS:.2f}", *rates, f"{flops / 1e9:.0f}")
    Console().print(table)
    if options.json:
        with open(options.json, "w") as stream:
            json.dump({"shape": (outs, INS), "bytes": sizes, "seconds": times}, stream)


if __name__ == "__main__":
    main()
