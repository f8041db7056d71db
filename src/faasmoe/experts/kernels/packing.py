"""The order in which the tiles of `matvec` read rows of x: those of a tile side by side, step by step, in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from faasmoe.experts.kernels.compiled import compiled, pointer
from faasmoe.experts.kernels.tile import LANES, STEP

MOST_ROWS = 6  # rows of x that go through a tile at once


@compiled
def group(rows: int, row: int) -> tuple[int, int]:
    """The rows of x that go through a tile together with `row`: the first of them, and their number."""
    rest = rows % MOST_ROWS
    if rest == 2 and rows > 2:  # twice four are quicker than six and two
        rest = 8
    sixes = rows - rest
    if row < sixes:
        return row - row % MOST_ROWS, MOST_ROWS
    if rest - (row - sixes) // 4 * 4 >= 4:
        return row - (row - sixes) % 4, 4
    fours = sixes + rest // 4 * 4
    if rows - fours >= 2 and row < fours + 2:
        return fours, 2
    return rows - 1, 1


@compiled
def unpack_row(x: int, packed: Any, row: int, int8: int) -> None:
    """bfloat16 `[ins]` at `x` to float32, as one of the rows of `packed` `[rows, ins]`, for weights of this format.

    Rows that go through a tile together alternate step by step. For weights in bfloat16 the even columns of a step
    come first, then the odd ones. Columns that make no whole step come last, in order.
    """
    rows, ins = packed.shape
    first, count = group(rows, row)
    values, bits = carray(pointer(x), (ins,), np.uint16), packed.view(np.uint32).reshape(-1)
    for step in range(ins // STEP):
        to, column = first * ins + (step * count + row - first) * STEP, step * STEP
        for lane in range(LANES):
            if int8:
                bits[to + lane] = values[column + lane] << 16
                bits[to + LANES + lane] = values[column + LANES + lane] << 16
            else:
                bits[to + lane] = values[column + 2 * lane] << 16
                bits[to + LANES + lane] = values[column + 2 * lane + 1] << 16
    done, rest = ins - ins % STEP, ins % STEP
    for column in range(rest):
        bits[first * ins + count * done + (row - first) * rest + column] = values[done + column] << 16


@compiled
def pack_row(x: Any, packed: Any, row: int, int8: int) -> None:
    """As `unpack_row`, for float32 `x` `[ins]`."""
    rows, ins = packed.shape
    first, count = group(rows, row)
    values = packed.reshape(-1)
    for step in range(ins // STEP):
        to, column = first * ins + (step * count + row - first) * STEP, step * STEP
        for lane in range(LANES):
            if int8:
                values[to + lane] = x[column + lane]
                values[to + LANES + lane] = x[column + LANES + lane]
            else:
                values[to + lane] = x[column + 2 * lane]
                values[to + LANES + lane] = x[column + 2 * lane + 1]
    done, rest = ins - ins % STEP, ins % STEP
    for column in range(rest):
        values[first * ins + count * done + (row - first) * rest + column] = x[done + column]


@compiled
def unpack(x: int, packed: Any, int8: int) -> None:
    """All rows of bfloat16 `[rows, ins]` at `x`, as `unpack_row`."""
    for row in range(len(packed)):
        unpack_row(x + 2 * packed.shape[1] * row, packed, row, int8)
