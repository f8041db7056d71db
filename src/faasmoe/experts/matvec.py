"""Linear layers over few rows in bfloat16, as fast as memory gives the weights.

A token sends one row, or a few, to an expert: each weight is read once from memory and used as often as there
are rows. A weight row is read as 32-bit words of two bfloat16 values each, which a shift and a mask turn into
float32, so `x` is laid out with its even and its odd columns apart. Numba compiles it for the CPU at hand; the
innermost loop is written in LLVM's vectors, so that the order of additions is ours: a row's result has the same
bits whatever rows come with it. `python -m benchmarks.linear` measures it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

_LANES = 8  # float32 values in an AVX2 register
_STEP = 2 * _LANES  # columns of one step of the innermost loop
_OUTS = 4  # weight rows at once: their sums and those of two rows of x fill half of AVX2's 16 registers
_X_TILE = 32  # rows of x that stay in the second cache while all weights pass

_BYTE, _WORD, _SIZE, _FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_WORDS, _FLOATS = ir.VectorType(_WORD, _LANES), ir.VectorType(_FLOAT, _LANES)


def _all(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * _LANES)


def _load(builder: Any, address: Any, vector: ir.VectorType, align: int) -> Any:
    loaded = builder.load(builder.inttoptr(address, vector.as_pointer()))
    loaded.align = align  # a mapped weight starts at any multiple of its element's size
    return loaded


def _prefetch(builder: Any, address: Any) -> None:
    pointer = _BYTE.as_pointer()
    prefetch = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [pointer, _WORD, _WORD, _WORD]), "llvm.prefetch.p0"
    )
    read, keep, data = _WORD(0), _WORD(3), _WORD(1)
    builder.call(prefetch, [builder.inttoptr(address, pointer), read, keep, data])


def _accumulate(builder: Any, accumulator: Any, a: Any, b: Any) -> None:
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{_LANES}f32"
    )
    builder.store(builder.call(fma, [a, b, builder.load(accumulator)]), accumulator)


def _sum(builder: Any, accumulator: Any) -> Any:
    add = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOAT, [_FLOAT, _FLOATS]), f"llvm.vector.reduce.fadd.v{_LANES}f32"
    )
    # as a tree of halves, which "reassoc" allows: without it eight additions would wait for each other
    return builder.call(add, [_FLOAT(-0.0), builder.load(accumulator)], fastmath=["reassoc"])


def _block(outs: int, rows: int, ahead: bool) -> Any:
    """`(w, x, sums, words, stride)`: products of `outs` weight rows with `rows` rows of x.

    All are integers: addresses of the first weight row (`words` uint32 each), of x (float32 `[rows, 2, words]`)
    and of the sums (float32, `stride` apart from row to row). With `ahead` the weight rows that follow are
    fetched meanwhile, because the hardware's own prefetching stops at the end of a page.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        w, x, sums, words, stride = arguments
        sums_of = {pair: cgutils.alloca_once(builder, _FLOATS) for pair in product(range(outs), range(rows))}
        for accumulator in sums_of.values():
            builder.store(_all(_FLOATS, 0.0), accumulator)
        line = builder.mul(words, _SIZE(4))  # bytes of a weight row, and of a half of a row of x
        w_rows = [builder.add(w, builder.mul(line, _SIZE(out))) for out in range(outs)]
        x_rows = [builder.add(x, builder.mul(line, _SIZE(half))) for half in range(2 * rows)]
        with cgutils.for_range(builder, builder.udiv(words, _SIZE(_LANES))) as loop:
            at = builder.mul(loop.index, _SIZE(4 * _LANES))
            pairs = []
            for row in w_rows:
                address = builder.add(row, at)
                pairs.append(_load(builder, address, _WORDS, align=2))
                if ahead:
                    _prefetch(builder, builder.add(address, builder.mul(line, _SIZE(outs))))
            even = [builder.shl(pair, _all(_WORDS, 16)) for pair in pairs]
            odd = [builder.and_(pair, _all(_WORDS, 0xFFFF0000)) for pair in pairs]
            for half, values in enumerate((even, odd)):
                xs = [_load(builder, builder.add(x_rows[2 * r + half], at), _FLOATS, 4) for r in range(rows)]
                for (out, row), accumulator in sums_of.items():
                    _accumulate(builder, accumulator, builder.bitcast(values[out], _FLOATS), xs[row])
        for (out, row), accumulator in sums_of.items():
            place = builder.add(builder.mul(stride, _SIZE(row)), _SIZE(out))
            address = builder.add(sums, builder.mul(place, _SIZE(4)))
            builder.store(_sum(builder, accumulator), builder.inttoptr(address, _FLOAT.as_pointer()))
        return context.get_dummy_value()

    def block(_context: Any, w: Any, x: Any, sums: Any, words: Any, stride: Any) -> Any:
        return types.void(*[types.intp] * 5), generate

    return intrinsic(block)


_ONE_OF_ONE, _ONE_OF_FOUR = _block(1, 1, ahead=False), _block(_OUTS, 1, ahead=True)
_TWO_OF_ONE, _TWO_OF_FOUR = _block(1, 2, ahead=False), _block(_OUTS, 2, ahead=False)
_FIRST_TWO_OF_FOUR = _block(_OUTS, 2, ahead=True)


def compiled(function: Any) -> Any:
    """Compile at the first call, and keep the code beside this file or in the user's cache, if it can."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no folder to keep it in
        return njit(nogil=True)(function)


@intrinsic
def pointer(_context: Any, address: Any) -> Any:
    """In compiled code: an address as a pointer, for `carray`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _BYTE.as_pointer())

    return types.voidptr(types.intp), generate


@intrinsic
def _as_float(_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = context.cast(builder, arguments[0], signature.args[0], types.uint32)
        return builder.bitcast(bits, _FLOAT)

    return types.float32(bits), generate


@compiled
def unpack(x: int, unpacked: int, rows: int, words: int) -> None:
    """bfloat16 `x` `[rows, 2 * words]` to float32 `[rows, 2, words]`: the even columns, then the odd ones."""
    values = carray(pointer(x), (rows, words, 2), np.uint16)
    bits = carray(pointer(unpacked), (rows, 2, words), np.uint32)
    for row in range(rows):
        for word in range(words):
            bits[row, 0, word] = values[row, word, 0] << 16
            bits[row, 1, word] = values[row, word, 1] << 16


@compiled
def _round(sums: int, y: int, rows: int, outs: int, stride: int) -> None:
    """float32 `sums` `[rows, outs]` to bfloat16 `y`, whose rows are `stride` apart, to nearest, ties to even."""
    bits = carray(pointer(sums), (rows, outs), np.uint32)
    for row in range(rows):
        rounded = carray(pointer(y + 2 * stride * row), (outs,), np.uint16)
        for out in range(outs):
            value = bits[row, out]
            if value & 0x7FFFFFFF > 0x7F800000:  # a nan, whose bits the rounding could carry into an infinity
                rounded[out] = 0x7FC0
            else:
                rounded[out] = (value + 0x7FFF + ((value >> 16) & 1)) >> 16


@compiled
def add_bias(sums: int, bias: int, rows: int, outs: int) -> None:
    """Add the bfloat16 vector `bias` to each row of float32 `sums` `[rows, outs]`."""
    values = carray(pointer(sums), (rows, outs), np.float32)
    biases = carray(pointer(bias), (outs,), np.uint16)
    for row in range(rows):
        for out in range(outs):
            values[row, out] += _as_float(np.uint32(biases[out]) << 16)


@compiled
def products(w: int, x: int, sums: int, rows: int, outs: int, words: int) -> None:
    """All products of `outs` weight rows with `rows` rows of x, as `_block` wants them."""
    line, whole = 4 * words, outs - outs % _OUTS
    for tile in range(0, rows, _X_TILE):
        end = min(tile + _X_TILE, rows)
        paired = end - (end - tile) % 2
        for out in range(0, whole, _OUTS):
            row_w = w + line * out
            for row in range(tile, paired, 2):
                row_x, to = x + 2 * line * row, sums + 4 * (outs * row + out)
                if row == tile:
                    _FIRST_TWO_OF_FOUR(row_w, row_x, to, words, outs)
                else:
                    _TWO_OF_FOUR(row_w, row_x, to, words, outs)
            if paired < end:
                _ONE_OF_FOUR(row_w, x + 2 * line * paired, sums + 4 * (outs * paired + out), words, outs)
        for out in range(whole, outs):
            row_w = w + line * out
            for row in range(tile, paired, 2):
                _TWO_OF_ONE(row_w, x + 2 * line * row, sums + 4 * (outs * row + out), words, outs)
            if paired < end:
                _ONE_OF_ONE(row_w, x + 2 * line * paired, sums + 4 * (outs * paired + out), words, outs)


@compiled
def linear_part(
    x: int, w: int, bias: int, y: int, rows: int, outs: int, words: int, first: int, last: int
) -> None:
    """Columns `first` to `last` of `y = x w^T + bias`, `[rows, outs]` bfloat16.

    The first four are addresses, x of what `unpack` gave; `bias` is 0 if there is none.
    """
    sums = np.empty((rows, last - first), np.float32)
    at = sums.ctypes.data
    products(w + 4 * words * first, x, at, rows, last - first, words)
    if bias:
        add_bias(at, bias + 2 * first, rows, last - first)
    _round(at, y + 2 * first, rows, last - first, outs)


def readable(weight: Tensor) -> bool:
    """Whether the kernels can read a matrix: bfloat16 in memory, `in` a multiple of 16, rows contiguous."""
    return (
        weight.dtype == torch.bfloat16
        and weight.dim() == 2
        and weight.shape[1] % _STEP == 0
        and weight.is_contiguous()
        and weight.device.type == "cpu"
    )


def supports(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether `linear_rows` takes them: bfloat16 in memory, and a weight that is `readable`, so not transposed."""
    return (
        readable(weight)
        and x.dtype == torch.bfloat16
        and x.dim() == 2
        and x.shape[1] == weight.shape[1]
        and x.device.type == "cpu"
        and (bias is None or (bias.dtype == torch.bfloat16 and bias.shape == weight.shape[:1]))
    )


def check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raises `ValueError` for what `supports` refuses."""
    if not supports(x, weight, bias):
        raise ValueError(f"no kernel for {x.dtype} {tuple(x.shape)} by {weight.dtype} {tuple(weight.shape)}")


def linear_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` `[n, in]`, `weight` `[out, in]` and `bias` `[out]` to `[n, out]`, all bfloat16.

    Sums are float32 and rounded once, after the bias was added. The weight may be a read-only map. Runs on the
    calling thread alone, without Python's lock. Raises `ValueError` for what `supports` refuses.
    """
    check(x, weight, bias)
    rows, (outs, ins) = len(x), weight.shape
    x, bias = x.contiguous(), None if bias is None else bias.contiguous()
    unpacked = torch.empty(rows, 2, ins // 2)
    y = torch.empty(rows, outs, dtype=torch.bfloat16)
    at_bias = 0 if bias is None else bias.data_ptr()
    unpack(x.data_ptr(), unpacked.data_ptr(), rows, ins // 2)
    linear_part(unpacked.data_ptr(), weight.data_ptr(), at_bias, y.data_ptr(), rows, outs, ins // 2, 0, outs)
    return y


def warm_up() -> None:
    """Compile the kernel, which takes about two seconds unless an earlier process kept it."""
    linear_rows(*(torch.zeros(1, _STEP, dtype=torch.bfloat16) for _ in range(2)))
