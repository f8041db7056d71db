"""How much arithmetic can one core do, and how much of it do kernels reach?

Runs nothing but independent operations on registers, a tenth of a second at a time: multiplying and adding float32
(what `experts.kernels.tile` does), and, where the processor has it, adding up products of bfloat16 (`vdpbf16ps`, what
oneDNN uses there). In turns with them, a linear layer over 512 rows on our kernel and on oneDNN's. Prints the best of
the rounds in GFLOP/s.

    python -m benchmarks.peak
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from rich.console import Console
from rich.table import Table
from torch.nn.functional import linear

from faasmoe.experts.kernels.matvec import linear_rows
from faasmoe.experts.kernels.tile import LANES

SHAPE, ROWS = (1408, 2048), 512  # an expert's layer of Qwen1.5-MoE
ACCUMULATORS = 16  # more than a core has under way, fewer than it has registers
TIMES = 20_000_000 // ACCUMULATORS  # an eighth of a second or less

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_PAIRS = ir.VectorType(ir.IntType(32), LANES)


def _fma(builder: Any, total: Any) -> Any:
    one = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, one, f"llvm.fma.v{LANES}f32")
    return builder.call(function, [total, ir.Constant(_FLOATS, [1.0] * LANES), total])


def _dot(builder: Any, total: Any) -> Any:
    pairs = ir.Constant(_PAIRS, [0x3F803F80] * LANES)
    assembly = ir.InlineAsm(
        ir.FunctionType(_FLOATS, [_FLOATS, _PAIRS, _PAIRS]), "vdpbf16ps $3, $2, $0", "=v,0,v,v", side_effect=True
    )
    return builder.call(assembly, [total, pairs, pairs])


def repeated(operation: Callable[[Any, Any], Any]) -> Callable[[int], None]:
    """Compiled: `operation` on each of the accumulators, so many times."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        totals = [
            cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, [1.0] * LANES)) for _ in range(ACCUMULATORS)
        ]
        with cgutils.for_range(builder, arguments[0]):
            for total in totals:
                builder.store(operation(builder, builder.load(total)), total)
        used = ir.InlineAsm(ir.FunctionType(ir.VoidType(), [_FLOATS]), "", "v", side_effect=True)
        for total in totals:
            builder.call(used, [builder.load(total)])
        return context.get_dummy_value()

    @intrinsic  # type: ignore[untyped-decorator]
    def loop(_context: Any, times: Any) -> Any:
        return types.void(types.intp), generate

    @njit(nogil=True)  # type: ignore[untyped-decorator]
    def run(times: int) -> None:
        loop(times)

    compiled: Callable[[int], None] = run
    return compiled


def gigaflops(run: Callable[[], object], operations: int) -> float:
    start = time.perf_counter()
    run()
    return operations / (time.perf_counter() - start) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    binding.initialize_native_asmparser()
    torch.set_num_threads(1)
    x, weight = torch.randn(ROWS, SHAPE[1]).bfloat16(), torch.randn(SHAPE).bfloat16()
    registers, layer = TIMES * ACCUMULATORS * LANES, 2 * ROWS * SHAPE[0] * SHAPE[1]
    kinds: dict[str, tuple[Callable[[], object], int]] = {
        "multiply and add float32": (partial(repeated(_fma), TIMES), 2 * registers),
        f"ours, {ROWS} rows": (partial(linear_rows, x, weight), layer),
        f"oneDNN, {ROWS} rows": (partial(linear, x, weight), layer),
    }
    if LANES == 16 and binding.get_host_cpu_features().get("avx512bf16"):
        kinds["add up products of bfloat16"] = partial(repeated(_dot), TIMES), 4 * registers
    best = dict.fromkeys(kinds, 0.0)
    for kind in kinds.values():
        gigaflops(*kind)  # compiles
    for _ in range(options.rounds):
        for name, kind in kinds.items():
            best[name] = max(best[name], gigaflops(*kind))
    table = Table("what", "GFLOP/s of one core")
    for name, rate in best.items():
        table.add_row(name, f"{rate:.0f}")
    Console().print(table)
    if options.json:
        with open(options.json, "w") as stream:
            json.dump({"gigaflops": best}, stream)


if __name__ == "__main__":
    main()
