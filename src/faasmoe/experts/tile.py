"""The innermost loop of `matvec`: products of a few weight rows with a few rows of x, in LLVM's vectors.

Weights become float32 in registers, 16 columns a step. Two of bfloat16 are read as one 32-bit word, which a shift
and a mask turn into the even and the odd column, so x is laid out with these apart; those of eight bits are widened
and converted, with x as it is. Either way a sum is of eight running sums, each added to in the order of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8  # float32 values in an AVX2 register
STEP = 2 * LANES  # columns of one step

BYTE, FLOAT = ir.IntType(8), ir.FloatType()
_WORD, _SIZE = ir.IntType(32), ir.IntType(64)
_BYTES, _WORDS, _FLOATS = (ir.VectorType(one, LANES) for one in (BYTE, _WORD, FLOAT))


@dataclass(frozen=True)
class _Format:
    """How weights lie in memory, and x for them: of each step a half, whose eight columns are multiplied at once."""

    width: int  # bytes of a weight
    split: bool  # the halves of a step's x are half a row apart; else they follow each other
    read: Callable[[Any, Any], tuple[Any, Any]]  # builder, address: the weights of one step in float32, in halves


def _all(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * LANES)


def _load(builder: Any, address: Any, vector: ir.VectorType, align: int) -> Any:
    loaded = builder.load(builder.inttoptr(address, vector.as_pointer()))
    loaded.align = align  # a mapped weight starts at any multiple of its element's size
    return loaded


def _read_bfloat16(builder: Any, address: Any) -> tuple[Any, Any]:
    pairs = _load(builder, address, _WORDS, align=2)
    even, odd = builder.shl(pairs, _all(_WORDS, 16)), builder.and_(pairs, _all(_WORDS, 0xFFFF0000))
    return builder.bitcast(even, _FLOATS), builder.bitcast(odd, _FLOATS)


def _read_int8(builder: Any, address: Any) -> tuple[Any, Any]:
    def half(at: int) -> Any:
        narrow = _load(builder, builder.add(address, _SIZE(at)), _BYTES, align=1)
        return builder.sitofp(builder.sext(narrow, _WORDS), _FLOATS)

    return half(0), half(LANES)


_BFLOAT16 = _Format(2, True, _read_bfloat16)
_INT8 = _Format(1, False, _read_int8)


def _prefetch(builder: Any, address: Any) -> None:
    pointer = BYTE.as_pointer()
    prefetch = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [pointer, _WORD, _WORD, _WORD]), "llvm.prefetch.p0"
    )
    read, keep, data = _WORD(0), _WORD(3), _WORD(1)
    builder.call(prefetch, [builder.inttoptr(address, pointer), read, keep, data])


def _accumulate(builder: Any, accumulator: Any, a: Any, b: Any) -> None:
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{LANES}f32"
    )
    builder.store(builder.call(fma, [a, b, builder.load(accumulator)]), accumulator)


def _sum(builder: Any, accumulator: Any) -> Any:
    add = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(FLOAT, [FLOAT, _FLOATS]), f"llvm.vector.reduce.fadd.v{LANES}f32"
    )
    # as a tree of halves, which "reassoc" allows: without it eight additions would wait for each other
    return builder.call(add, [FLOAT(-0.0), builder.load(accumulator)], fastmath=["reassoc"])


def _pass(
    builder: Any, form: _Format, w: Any, x: Any, ins: Any, sums: Sequence[Sequence[Any]], ahead: bool
) -> None:
    """Add all columns' products to the accumulators `sums` `[outs][rows]`."""
    outs, rows = len(sums), len(sums[0])
    line, x_line = builder.mul(ins, _SIZE(form.width)), builder.mul(ins, _SIZE(4))
    w_rows = [builder.add(w, builder.mul(line, _SIZE(out))) for out in range(outs)]
    x_rows = [builder.add(x, builder.mul(x_line, _SIZE(row))) for row in range(rows)]
    apart = builder.mul(ins, _SIZE(2)) if form.split else _SIZE(4 * LANES)  # bytes between the halves of x
    x_step = 4 * LANES if form.split else 4 * STEP
    with cgutils.for_range(builder, builder.udiv(ins, _SIZE(STEP))) as loop:
        at, x_at = builder.mul(loop.index, _SIZE(form.width * STEP)), builder.mul(loop.index, _SIZE(x_step))
        addresses = [builder.add(row, at) for row in w_rows]
        weights = [form.read(builder, address) for address in addresses]
        if ahead:
            for address in addresses:
                _prefetch(builder, builder.add(address, builder.mul(line, _SIZE(outs))))
        for half in range(2):
            starts = [builder.add(builder.add(row, x_at), builder.mul(apart, _SIZE(half))) for row in x_rows]
            xs = [_load(builder, start, _FLOATS, align=4) for start in starts]
            for out, row in product(range(outs), range(rows)):
                _accumulate(builder, sums[out][row], weights[out][half], xs[row])


def tile(outs: int, rows: int, ahead: bool) -> Any:
    """`(w, int8, x, sums, ins, stride)`: products of `outs` weight rows with `rows` rows of x.

    All are integers: addresses of the first weight row (`ins` columns each; bfloat16 if `int8` is 0), of x (float32
    `[rows, ins]`, columns as the weights' format wants them) and of the sums (float32, `stride` apart from row to
    row). With `ahead` the weight rows that follow are fetched meanwhile, because the hardware's own prefetching
    stops at the end of a page.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        w, int8, x, sums, ins, stride = arguments
        running = [[cgutils.alloca_once(builder, _FLOATS) for _ in range(rows)] for _ in range(outs)]
        for out, row in product(range(outs), range(rows)):
            builder.store(_all(_FLOATS, 0.0), running[out][row])
        with builder.if_else(builder.icmp_signed("!=", int8, _SIZE(0))) as (then, otherwise):
            with then:
                _pass(builder, _INT8, w, x, ins, running, ahead)
            with otherwise:
                _pass(builder, _BFLOAT16, w, x, ins, running, ahead)
        for out, row in product(range(outs), range(rows)):
            place = builder.add(builder.mul(stride, _SIZE(row)), _SIZE(out))
            address = builder.add(sums, builder.mul(place, _SIZE(4)))
            builder.store(_sum(builder, running[out][row]), builder.inttoptr(address, FLOAT.as_pointer()))
        return context.get_dummy_value()

    def products(_context: Any, w: Any, int8: Any, x: Any, sums: Any, ins: Any, stride: Any) -> Any:
        return types.void(*[types.intp] * 6), generate

    return intrinsic(products)
