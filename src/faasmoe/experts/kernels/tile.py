"""The innermost loop of `matvec`: products of a few weight rows with a few rows of x, in LLVM's vectors.

Weights become float32 in registers, 32 columns a step with AVX-512, else 16. Two of bfloat16 are read as one 32-bit
word, which a shift and a mask turn into the even and the odd column, so a step of x has these apart; those of eight
bits are widened and converted, with x as it is. Either way a sum is of `LANES` running sums, each added to in the
order of columns. x is one stream, step by step: rows of x side by side would all be in the same few places of the
first cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # float32 values in a register
STEP = 2 * LANES  # columns of one step
# Whether what is needed once is better kept out of the larger caches: on AMD's Zen that wins a sixth, on Intel's
# Emerald Rapids it loses half.
KEEPS_OUT = binding.get_host_cpu_name().startswith("znver")

BYTE, FLOAT = ir.IntType(8), ir.FloatType()
_WORD, _SIZE = ir.IntType(32), ir.IntType(64)
_BYTES, _WORDS, _FLOATS = (ir.VectorType(one, LANES) for one in (BYTE, _WORD, FLOAT))


@dataclass(frozen=True)
class _Format:
    """The layout of weights in memory. The columns of a step are multiplied in two halves, one after the other."""

    width: int  # bytes of a weight
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


_BFLOAT16 = _Format(2, _read_bfloat16)
_INT8 = _Format(1, _read_int8)


def _prefetch(builder: Any, address: Any, once: bool) -> None:
    """`once`: into the first cache only, so that what others have in the larger ones stays there."""
    pointer = BYTE.as_pointer()
    prefetch = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [pointer, _WORD, _WORD, _WORD]), "llvm.prefetch.p0"
    )
    read, keep, data = _WORD(0), _WORD(0 if once else 3), _WORD(1)
    builder.call(prefetch, [builder.inttoptr(address, pointer), read, keep, data])


def _accumulate(builder: Any, accumulator: Any, a: Any, b: Any) -> None:
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{LANES}f32"
    )
    builder.store(builder.call(fma, [a, b, builder.load(accumulator)]), accumulator)


def _pass(
    builder: Any, form: _Format, places: _Places, columns: Any, sums: Sequence[Sequence[Any]], once: bool
) -> None:
    """Add the products of some columns to the accumulators `sums` `[outs][rows]`."""
    outs, rows = len(sums), len(sums[0])
    line = builder.mul(places.ins, _SIZE(form.width))
    w_rows = [builder.add(places.w, builder.mul(line, _SIZE(out))) for out in range(outs)]
    with cgutils.for_range(builder, builder.udiv(columns, _SIZE(STEP))) as loop:
        at = builder.mul(loop.index, _SIZE(form.width * STEP))
        x = builder.add(places.x, builder.mul(loop.index, _SIZE(4 * STEP * rows)))
        addresses = [builder.add(row, at) for row in w_rows]
        weights = [form.read(builder, address) for address in addresses]
        for address in addresses:
            _prefetch(builder, builder.add(address, places.ahead), once)
        for half, row in product(range(2), range(rows)):
            place = builder.add(x, _SIZE(4 * (STEP * row + LANES * half)))
            values = _load(builder, place, _FLOATS, align=4)
            for out in range(outs):
                _accumulate(builder, sums[out][row], weights[out][half], values)


@dataclass(frozen=True)
class _Places:
    """Addresses and sizes of a tile, as values of the code that is being built."""

    w: Any
    x: Any
    ins: Any
    ahead: Any


def tile(outs: int, rows: int, once: bool = False) -> Any:
    """`(w, int8, x, running, ins, columns, ahead)`: products of `outs` weight rows with `rows` rows of x.

    All are integers: addresses of the first weight row (`ins` columns each; bfloat16 if `int8` is 0), of x (float32,
    step after step the rows' columns of it) and of the running sums (float32 `[outs, rows, LANES]`), to which the
    products of `columns` columns are added. What lies `ahead` bytes behind the weights is fetched
    meanwhile, because the hardware's own prefetching stops at the end of a page. `once`: nobody needs these weights
    again soon.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        w, int8, x, running, ins, columns, ahead = arguments
        pairs = list(product(range(outs), range(rows)))
        sums = [[cgutils.alloca_once(builder, _FLOATS) for _ in range(rows)] for _ in range(outs)]
        kept = {pair: builder.add(running, _SIZE(4 * LANES * place)) for place, pair in enumerate(pairs)}
        for out, row in pairs:
            builder.store(_load(builder, kept[out, row], _FLOATS, align=4), sums[out][row])
        places = _Places(w, x, ins, ahead)
        with builder.if_else(builder.icmp_signed("!=", int8, _SIZE(0))) as (then, otherwise):
            with then:
                _pass(builder, _INT8, places, columns, sums, once)
            with otherwise:
                _pass(builder, _BFLOAT16, places, columns, sums, once)
        for out, row in pairs:
            address = builder.inttoptr(kept[out, row], _FLOATS.as_pointer())
            builder.store(builder.load(sums[out][row]), address).align = 4
        return context.get_dummy_value()

    def products(
        _context: Any, w: Any, int8: Any, x: Any, running: Any, ins: Any, columns: Any, ahead: Any
    ) -> Any:
        return types.void(*[types.intp] * 7), generate

    return intrinsic(products)


@intrinsic  # type: ignore[untyped-decorator]
def total(_context: Any, address: Any) -> Any:
    """In compiled code: the sum of the `LANES` numbers at an address, as a tree of halves."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(FLOAT, [FLOAT, _FLOATS]), f"llvm.vector.reduce.fadd.v{LANES}f32"
        )
        # "reassoc" allows the tree; without it the additions would wait for each other
        values = _load(builder, arguments[0], _FLOATS, align=4)
        return builder.call(add, [FLOAT(-0.0), values], fastmath=["reassoc"])

    return types.float32(types.intp), generate
