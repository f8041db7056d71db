"""Which kernel runs a linear layer fastest for few rows, with weights in bfloat16, in eight bits or in float32?

Compares oneDNN, torch's own, ours (`model.dense.linear.matvec`), and float32 copies of pieces of the weight that fit a
cache, multiplied in float32 (upcast); in eight bits and in float32 ours and torch's, and for rows in float32 weights
in float16, which torch does not multiply. Prints GB/s of weights read, counted as if all were bfloat16, the median over
rounds that alternate between kernels, and as the ceiling the rate at which one core reads the same bytes. The layer is
larger than the caches, as weights are when every token uses other experts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import linear

from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.experts.kernels.library import ADDRESS, FLOAT, INT, LIBRARY
from faasmoe.model.dense.linear.matvec import linear_rows
from faasmoe.model.tensors import as_array, as_tensor

SHAPE = (5632, 2048)  # Qwen1.5-MoE's shared expert
COPIES = 6  # 138 MB, so that no weight is still in a cache when its turn comes again
PIECE = 128  # weight rows that are copied at once
ROWS = (1, 2, 4, 8, 16, 32, 64)
read_all = LIBRARY.function("read_all", ADDRESS, INT, result=FLOAT)

Kernel = Callable[[torch.Tensor, torch.Tensor], object]
Int8Kernel = Callable[[torch.Tensor, Int8Matrix], object]
Weight = tuple[torch.Tensor, Int8Matrix, torch.Tensor, torch.Tensor]  # bfloat16, int8, float32, float16


def own(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    torch._C._set_mkldnn_enabled(False)
    try:
        return linear(x, weight)
    finally:
        torch._C._set_mkldnn_enabled(True)


def upcast(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x = x.float()
    return torch.cat([linear(x, piece.float()) for piece in torch.split(weight, PIECE)], dim=1).bfloat16()


def read(_: torch.Tensor, weight: torch.Tensor) -> None:
    read_all(weight.data_ptr(), weight.nbytes)


def torch_int8(x: torch.Tensor, weight: Int8Matrix) -> torch.Tensor:
    return torch._weight_int8pack_mm(x, as_tensor(weight.values), as_tensor(weight.scale).bfloat16())


def in_bfloat16(kernel: Kernel) -> Callable[[torch.Tensor, Weight], object]:
    return lambda x, weight: kernel(x, weight[0])


def in_int8(kernel: Int8Kernel) -> Callable[[torch.Tensor, Weight], object]:
    return lambda x, weight: kernel(x, weight[1])


def in_float32(kernel: Kernel, place: Literal[2, 3]) -> Callable[[torch.Tensor, Weight], object]:
    return lambda x, weight: kernel(x.float(), weight[place])


KERNELS = {
    "oneDNN": in_bfloat16(linear),
    "torch's own": in_bfloat16(own),
    "ours": in_bfloat16(linear_rows),
    "upcast": in_bfloat16(upcast),
    "read": in_bfloat16(read),
    "ours, int8": in_int8(linear_rows),
    "torch's, int8": in_int8(torch_int8),
    "ours, float32": in_float32(linear_rows, 2),
    "torch's, float32": in_float32(linear, 2),
    "ours, float16": in_float32(linear_rows, 3),
}


def gigabytes_per_second(
    kernel: Callable[[torch.Tensor, Weight], object], x: torch.Tensor, weights: list[Weight]
) -> float:
    start = time.perf_counter()
    for weight in weights:
        kernel(x, weight)
    return sum(weight[0].nbytes for weight in weights) / (time.perf_counter() - start) / 1e9


def measure(rows: int, weights: list[Weight], rounds: int) -> dict[str, float]:
    x = torch.randn(rows, SHAPE[1]).bfloat16()
    rates: dict[str, list[float]] = {name: [] for name in KERNELS}
    for kernel in KERNELS.values():
        kernel(x, weights[0])  # starts threads
    for _ in range(rounds):
        for name, kernel in KERNELS.items():
            rates[name].append(gigabytes_per_second(kernel, x, weights))
    return {name: statistics.median(rate) for name, rate in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of torch; ours uses one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plain = [torch.randn(SHAPE).bfloat16() for _ in range(COPIES)]
    weights = [(weight, Int8Matrix.nearest(as_array(weight)), weight.float(), weight.half()) for weight in plain]
    figures = {rows: measure(rows, weights, options.rounds) for rows in ROWS}
    table = Table("rows", *KERNELS, title=f"GB/s as if in bfloat16, {options.threads} threads")
    for rows, rates in figures.items():
        table.add_row(str(rows), *(f"{rate:.1f}" for rate in rates.values()))
    Console().print(table)
    if options.json:
        with open(options.json, "w") as stream:
            json.dump({"threads": options.threads, "shape": SHAPE, "gigabytes_per_second": figures}, stream)


if __name__ == "__main__":
    main()
