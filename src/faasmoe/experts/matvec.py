"""Linear layers over few rows, with weights in bfloat16 or in eight bits, as fast as memory gives the weights.

A token sends one row, or a few, to an expert: each weight is read once from memory and used as often as there
are rows. Weights become float32 on the way (`tile`), as `x` and the sums are. Numba compiles it for the CPU at hand;
the innermost loop is written in LLVM's vectors, so that the order of additions is ours: a row's result has the same
bits whatever rows come with it. `python -m benchmarks.linear` measures it.

A matrix is known to compiled code by the addresses of its weights and of its rows' scales, float32; an address of
0 for these says that the weights are bfloat16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import carray, njit, types
from numba.extending import intrinsic
from torch import Tensor

from faasmoe.experts.int8 import Int8Matrix, Matrix
from faasmoe.experts.tile import BYTE, FLOAT, STEP, tile

_OUTS = 4  # weight rows at once: their sums and those of two rows of x fill half of AVX2's 16 registers
_X_TILE = 32  # rows of x that stay in the second cache while all weights pass

_ONE_OF_ONE, _ONE_OF_FOUR = tile(1, 1, ahead=False), tile(_OUTS, 1, ahead=True)
_TWO_OF_ONE, _TWO_OF_FOUR = tile(1, 2, ahead=False), tile(_OUTS, 2, ahead=False)
_FIRST_TWO_OF_FOUR = tile(_OUTS, 2, ahead=True)


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
        return builder.inttoptr(arguments[0], BYTE.as_pointer())

    return types.voidptr(types.intp), generate


@intrinsic
def _as_float(_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = context.cast(builder, arguments[0], signature.args[0], types.uint32)
        return builder.bitcast(bits, FLOAT)

    return types.float32(bits), generate


@compiled
def unpack(x: int, unpacked: int, rows: int, ins: int, int8: int) -> None:
    """bfloat16 `x` `[rows, ins]` to float32, as weights in int8 want it, or in bfloat16 if `int8` is 0.

    For these all even columns of a row come first, then the odd ones.
    """
    values = carray(pointer(x), (rows, ins), np.uint16)
    bits = carray(pointer(unpacked), (rows, ins), np.uint32)
    for row in range(rows):
        if int8:
            for column in range(ins):
                bits[row, column] = values[row, column] << 16
        else:
            for word in range(ins // 2):
                bits[row, word] = values[row, 2 * word] << 16
                bits[row, ins // 2 + word] = values[row, 2 * word + 1] << 16


# Arrays that were made in compiled code are handed on as such, not by their addresses: numba frees an array after the
# last place that names it.


@compiled
def _round(sums: Any, y: int, stride: int) -> None:
    """float32 `sums` `[rows, outs]` to bfloat16 `y`, whose rows are `stride` apart, to nearest, ties to even."""
    bits = sums.view(np.uint32)
    for row in range(len(bits)):
        rounded = carray(pointer(y + 2 * stride * row), (bits.shape[1],), np.uint16)
        for out in range(bits.shape[1]):
            value = bits[row, out]
            if value & 0x7FFFFFFF > 0x7F800000:  # a nan, whose bits the rounding could carry into an infinity
                rounded[out] = 0x7FC0
            else:
                rounded[out] = (value + 0x7FFF + ((value >> 16) & 1)) >> 16


@compiled
def add_bias(sums: Any, bias: int) -> None:
    """Add the bfloat16 vector `bias` to each row of float32 `sums` `[rows, outs]`."""
    biases = carray(pointer(bias), (sums.shape[1],), np.uint16)
    for row in range(len(sums)):
        for out in range(len(biases)):
            sums[row, out] += _as_float(np.uint32(biases[out]) << 16)


@compiled
def _rescale(sums: Any, scale: int) -> None:
    """Multiply each row of float32 `sums` `[rows, outs]` by the float32 vector `scale`."""
    scales = carray(pointer(scale), (sums.shape[1],), np.float32)
    for row in range(len(sums)):
        for out in range(len(scales)):
            sums[row, out] *= scales[out]


@compiled
def products(w: int, scale: int, x: Any, sums: Any) -> None:
    """All products of a matrix's rows with those of x, to `sums` `[rows, outs]`.

    `x` `[rows, ins]` is what `unpack` made ready for the matrix's format; both arrays are float32 in row-major order.
    """
    (rows, ins), outs = x.shape, sums.shape[1]
    at_x, at_sums = x.ctypes.data, sums.ctypes.data
    line, x_line, whole = ins if scale else 2 * ins, 4 * ins, outs - outs % _OUTS
    for first in range(0, rows, _X_TILE):
        end = min(first + _X_TILE, rows)
        paired = end - (end - first) % 2
        for out in range(0, whole, _OUTS):
            row_w = w + line * out
            for row in range(first, paired, 2):
                row_x, to = at_x + x_line * row, at_sums + 4 * (outs * row + out)
                if row == first:
                    _FIRST_TWO_OF_FOUR(row_w, scale, row_x, to, ins, outs)
                else:
                    _TWO_OF_FOUR(row_w, scale, row_x, to, ins, outs)
            if paired < end:
                to = at_sums + 4 * (outs * paired + out)
                _ONE_OF_FOUR(row_w, scale, at_x + x_line * paired, to, ins, outs)
        for out in range(whole, outs):
            row_w = w + line * out
            for row in range(first, paired, 2):
                _TWO_OF_ONE(row_w, scale, at_x + x_line * row, at_sums + 4 * (outs * row + out), ins, outs)
            if paired < end:
                to = at_sums + 4 * (outs * paired + out)
                _ONE_OF_ONE(row_w, scale, at_x + x_line * paired, to, ins, outs)
    if scale:
        _rescale(sums, scale)


@compiled
def linear_part(
    x: int, w: int, scale: int, bias: int, y: int, rows: int, outs: int, ins: int, first: int, last: int
) -> None:
    """Columns `first` to `last` of `y = x w^T + bias`, `[rows, outs]` bfloat16.

    The first five are addresses, x of what `unpack` gave; `bias` is 0 if there is none.
    """
    unpacked = carray(pointer(x), (rows, ins), np.float32)
    sums = np.empty((rows, last - first), np.float32)
    if scale:
        products(w + ins * first, scale + 4 * first, unpacked, sums)
    else:
        products(w + 2 * ins * first, 0, unpacked, sums)
    if bias:
        add_bias(sums, bias + 2 * first)
    _round(sums, y + 2 * first, outs)


def readable(weight: Matrix) -> bool:
    """Whether the kernels can read a matrix: bfloat16 or int8 in memory, `in` a multiple of 16, rows contiguous."""
    if isinstance(weight, Int8Matrix):
        values, kind, scale = weight.values, torch.int8, weight.scale
        if scale.dtype != torch.float32 or scale.shape != values.shape[:1] or not scale.is_contiguous():
            return False
    else:
        values, kind = weight, torch.bfloat16
    return (
        values.dtype == kind
        and values.dim() == 2
        and values.shape[1] % STEP == 0
        and values.is_contiguous()
        and values.device.type == "cpu"
    )


def supports(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> bool:
    """Whether `linear_rows` takes them: x and bias in bfloat16, and a weight that is `readable`, so not transposed."""
    return (
        readable(weight)
        and x.dtype == torch.bfloat16
        and x.dim() == 2
        and x.shape[1] == weight.shape[1]
        and x.device.type == "cpu"
        and (bias is None or (bias.dtype == torch.bfloat16 and bias.shape == weight.shape[:1]))
    )


class Operands:
    """A linear layer over `rows` rows as compiled code takes it. Keeps alive what it has addresses of.

    Raises `ValueError` for what `supports` refuses.
    """

    def __init__(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> None:
        if not supports(x, weight, bias):
            raise ValueError(f"no kernel for {x.dtype} {tuple(x.shape)} by {_name(weight)} {tuple(weight.shape)}")
        self.rows, (self.outs, self.ins) = len(x), weight.shape
        self._weight, self._x, self._bias = weight, x.contiguous(), None if bias is None else bias.contiguous()
        self._unpacked = torch.empty(self.rows, self.ins)
        self.w, self.scale = addresses(weight)
        self.y = torch.empty(self.rows, self.outs, dtype=torch.bfloat16)

    @property
    def job(self) -> tuple[int, ...]:
        """The arguments of `linear_part` but for the last two."""
        bias = 0 if self._bias is None else self._bias.data_ptr()
        sizes = (self.rows, self.outs, self.ins)
        return (self._unpacked.data_ptr(), self.w, self.scale, bias, self.y.data_ptr(), *sizes)

    def unpack(self) -> None:
        """To be done before any part."""
        unpack(self._x.data_ptr(), self._unpacked.data_ptr(), self.rows, self.ins, self.scale)


def _name(weight: Matrix) -> str:
    return "int8" if isinstance(weight, Int8Matrix) else str(weight.dtype)


def addresses(weight: Matrix) -> tuple[int, int]:
    """Of a matrix's weights and of its scales, 0 if it has none."""
    if isinstance(weight, Int8Matrix):
        return weight.values.data_ptr(), weight.scale.data_ptr()
    return weight.data_ptr(), 0


def linear_rows(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
    """`x` `[n, in]`, `weight` `[out, in]` and `bias` `[out]` to `[n, out]`, all bfloat16 but for a weight in int8.

    Sums are float32 and rounded once, after the bias was added. The weight may be a read-only map. Runs on the
    calling thread alone, without Python's lock. Raises `ValueError` for what `supports` refuses.
    """
    operands = Operands(x, weight, bias)
    operands.unpack()
    linear_part(*operands.job, 0, operands.outs)
    return operands.y


def warm_up() -> None:
    """Compile the kernel, which takes a few seconds unless an earlier process kept it."""
    linear_rows(*(torch.zeros(1, STEP, dtype=torch.bfloat16) for _ in range(2)))
