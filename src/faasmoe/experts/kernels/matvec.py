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
from numba import carray
from torch import Tensor

from faasmoe.experts.formats.base import MULTIPLE, Matrix
from faasmoe.experts.formats.registry import addresses, format_of
from faasmoe.experts.kernels.compiled import compiled, narrow, pointer, widen
from faasmoe.experts.kernels.packing import MOST_ROWS, group, unpack
from faasmoe.experts.kernels.tile import KEEPS_OUT, LANES, STEP, tile, total

# weight rows that go with four and with six of them: with their sums they fill 32 registers, or AVX2's 16
_OUTS_BY_FOUR, _OUTS_BY_SIX = (4, 4) if LANES == 16 else (3, 2)
_BLOCK = 1024  # columns at once where rows are many: those of six rows of x fill most of the first cache
# of weights that stay in the second cache while all rows of x pass: of 2 MiB where there is AVX-512, else of 512 KiB
_CHUNK_BYTES = (192 if LANES == 16 else 96) << 10
_CHUNK_ROWS = 12  # a chunk is a multiple of it, so that tiles of four, three and two weight rows leave no rest

_ONE_OF_ONE, _TWO_OF_ONE, _FOUR_OF_ONE, _SIX_OF_ONE = (tile(1, rows) for rows in (1, 2, 4, 6))
_ONE_OF_FOUR, _TWO_OF_FOUR = tile(4, 1), tile(4, 2)
_FOUR_OF_SOME, _SIX_OF_SOME = tile(_OUTS_BY_FOUR, 4), tile(_OUTS_BY_SIX, 6)
# where these are all rows of x, weights are needed once: a step's other data then stay in the second and third cache
_ONLY_ONE_OF_FOUR, _ONLY_TWO_OF_FOUR = tile(4, 1, once=True), tile(4, 2, once=True)


# Arrays that were made in compiled code are handed on as such, not by their addresses: numba frees an array after the
# last place that names it.


@compiled
def _round(sums: Any, y: int, stride: int) -> None:
    """float32 `sums` `[rows, outs]` to bfloat16 `y`, whose rows are `stride` apart."""
    for row in range(len(sums)):
        rounded = carray(pointer(y + 2 * stride * row), (sums.shape[1],), np.uint16)
        for out in range(sums.shape[1]):
            rounded[out] = narrow(sums[row, out])


@compiled
def add_bias(sums: Any, bias: int) -> None:
    """Add the bfloat16 vector `bias` to each row of float32 `sums` `[rows, outs]`."""
    biases = carray(pointer(bias), (sums.shape[1],), np.uint16)
    for row in range(len(sums)):
        for out in range(len(biases)):
            sums[row, out] += widen(biases[out])


@compiled
def _rescale(sums: Any, scale: int) -> None:
    """Multiply each row of float32 `sums` `[rows, outs]` by the float32 vector `scale`."""
    scales = carray(pointer(scale), (sums.shape[1],), np.float32)
    for row in range(len(sums)):
        for out in range(len(scales)):
            sums[row, out] *= scales[out]


@compiled
def _several(
    w: int, scale: int, x: int, to: int, ins: int, columns: int, behind: int, count: int, once: bool
) -> None:
    """The tile of several weight rows for so many rows of x."""
    if once and count == 1:
        _ONLY_ONE_OF_FOUR(w, scale, x, to, ins, columns, behind)
    elif once and count == 2:
        _ONLY_TWO_OF_FOUR(w, scale, x, to, ins, columns, behind)
    elif count == 1:
        _ONE_OF_FOUR(w, scale, x, to, ins, columns, behind)
    elif count == 2:
        _TWO_OF_FOUR(w, scale, x, to, ins, columns, behind)
    elif count == 4:
        _FOUR_OF_SOME(w, scale, x, to, ins, columns, behind)
    else:
        _SIX_OF_SOME(w, scale, x, to, ins, columns, behind)


@compiled
def _single(w: int, scale: int, x: int, to: int, ins: int, columns: int, count: int) -> None:
    """The tile of one weight row, for rows that fill no tile of several."""
    if count == 1:
        _ONE_OF_ONE(w, scale, x, to, ins, columns, 0)
    elif count == 2:
        _TWO_OF_ONE(w, scale, x, to, ins, columns, 0)
    elif count == 4:
        _FOUR_OF_ONE(w, scale, x, to, ins, columns, 0)
    else:
        _SIX_OF_ONE(w, scale, x, to, ins, columns, 0)


@compiled
def _add_rest(w: int, scale: int, x: int, running: Any, ins: int) -> None:
    """Add the products of the columns that make no whole step to `running` `[outs, rows, LANES]`.

    `w` and `x` are addresses of the first weight row and of the rows of x.
    """
    outs, count, _ = running.shape
    rest = ins % STEP
    values = carray(pointer(x + 4 * count * (ins - rest)), (count, rest), np.float32)
    for out in range(outs):
        first = ins * out + ins - rest
        for row in range(count):
            for column in range(rest):
                if scale:
                    weight = np.float32(carray(pointer(w + first), (rest,), np.int8)[column])
                else:
                    weight = widen(carray(pointer(w + 2 * first), (rest,), np.uint16)[column])
                running[out, row, 0] += weight * values[row, column]


@compiled
def _tiles(
    w: int,
    scale: int,
    x: int,
    sums: Any,
    first: int,
    last: int,
    row: int,
    count: int,
    ins: int,
    block: int,
    ahead: int,
    once: bool,
) -> None:
    """Products of the weight rows `first` to `last` with `count` rows of x, 1, 2, 4 or 6, from `row` on.

    `w` and `x` are addresses of all of them. With each weight row the one `ahead` rows behind it is fetched,
    and leaves the caches again if all are needed `once`.
    """
    width = 1 if scale else 2  # bytes of a weight
    at_once = 4 if count <= 2 else _OUTS_BY_FOUR if count == 4 else _OUTS_BY_SIX
    behind = width * ins * ahead
    running = np.zeros((last - first, count, LANES), np.float32)
    x += 4 * ins * row
    for column in range(0, ins, block):
        columns = min(block, ins - column)
        at_x, out = x + 4 * column * count, first
        while out < last:
            at_w, to = w + width * (ins * out + column), running.ctypes.data + 4 * LANES * count * (out - first)
            if out + at_once <= last:
                _several(at_w, scale, at_x, to, ins, columns, behind, count, once)
                out += at_once
            else:
                _single(at_w, scale, at_x, to, ins, columns, count)
                out += 1
    if ins % STEP:
        _add_rest(w + width * ins * first, scale, x, running, ins)
    # a tile of several weight rows has its running sums by weight row, then by row of x, as tiles of one have
    at = running.ctypes.data
    for i in range(count):
        for out in range(first, last):
            sums[row + i, out] = total(at + 4 * LANES * (count * (out - first) + i))
    running[0, 0, 0] = 0  # numba frees an array after the last place that names it


@compiled
def products(w: int, scale: int, x: Any, sums: Any) -> None:
    """All products of a matrix's rows with those of x, to `sums` `[rows, outs]`.

    `x` `[rows, ins]` was laid out by `unpack` for the matrix's format; both arrays are float32 in row-major order.
    """
    (rows, ins), outs = x.shape, sums.shape[1]
    line = ins if scale else 2 * ins
    chunk = max(1, _CHUNK_BYTES // line // _CHUNK_ROWS) * _CHUNK_ROWS
    block = ins if rows <= MOST_ROWS else _BLOCK
    at_x = x.ctypes.data
    for first in range(0, outs, chunk):
        last, row = min(first + chunk, outs), 0
        while row < rows:
            _, count = group(rows, row)
            # the first rows fetch the weights that follow, the second ones those that these will all need next
            ahead = 4 if row == 0 else chunk if row == count and last < outs else 0
            _tiles(w, scale, at_x, sums, first, last, row, count, ins, block, ahead, KEEPS_OUT and count == rows)
            row += count
    if scale:
        _rescale(sums, scale)


@compiled
def linear_part(
    x: int, w: int, scale: int, bias: int, y: int, rows: int, outs: int, ins: int, first: int, last: int
) -> None:
    """Columns `first` to `last` of `y = x w^T + bias`, `[rows, outs]` bfloat16.

    The first five are addresses, x of the array that `unpack` filled; `bias` is 0 if there is none.
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
    """Whether the compiled kernels can read a matrix: bfloat16 or int8 in memory, contiguous rows of `MULTIPLE`s."""
    return addresses(weight) is not None


def supports(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> bool:
    """Whether `linear_rows` takes them: x and bias in bfloat16, and a weight that is `readable`, so not transposed."""
    return (
        readable(weight)
        and x.dtype == torch.bfloat16
        and x.dim() == 2
        and x.shape[1] == weight.shape[1]
        and x.device.type == "cpu"
        and readable_bias(bias, weight)
    )


def readable_bias(bias: Tensor | None, weight: Matrix) -> bool:
    """Whether the kernels can add a bias: none, or bfloat16, one for each of the weight's rows."""
    return bias is None or (bias.dtype == torch.bfloat16 and bias.shape == weight.shape[:1])


class Operands:
    """A linear layer over `rows` rows as compiled code takes it. Keeps alive the tensors whose addresses it holds.

    Raises `ValueError` for what `supports` refuses.
    """

    def __init__(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> None:
        read = addresses(weight)
        if read is None or not supports(x, weight, bias):
            raise ValueError(
                f"no kernel for {x.dtype} {tuple(x.shape)} by {format_of(weight).name} {tuple(weight.shape)}"
            )
        self.rows, (self.outs, self.ins) = len(x), weight.shape
        self._weight, self._x, self._bias = weight, x.contiguous(), None if bias is None else bias.contiguous()
        self._unpacked = np.empty((self.rows, self.ins), np.float32)
        self.w, self.scale = read
        self.y = torch.empty(self.rows, self.outs, dtype=torch.bfloat16)

    @property
    def job(self) -> tuple[int, ...]:
        """The arguments of `linear_part` but for the last two."""
        bias = 0 if self._bias is None else self._bias.data_ptr()
        sizes = (self.rows, self.outs, self.ins)
        return (self._unpacked.ctypes.data, self.w, self.scale, bias, self.y.data_ptr(), *sizes)

    def unpack(self) -> None:
        """Prepare x. Must be called before any part is computed."""
        unpack(self._x.data_ptr(), self._unpacked, self.scale)


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
    linear_rows(*(torch.zeros(1, MULTIPLE, dtype=torch.bfloat16) for _ in range(2)))
