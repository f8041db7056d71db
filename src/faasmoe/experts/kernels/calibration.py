"""Measures which instruction set is the fastest here: wide vectors slow some CPUs down more than they save.

One is chosen for all that a process computes. By the number of rows, it would give a row other bits in other company.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.kernels.library import BOOL, LINEAR_ROWS, Library

SECONDS = 2.0  # in which rounds begin; a round takes a tenth on a CPU with AVX2
_INS = 2048  # columns of the weights
_BYTES = 64 << 20  # of the weights that are larger than most caches
_LEAST_GAIN = 0.03  # of the time, for which the best by the CPU's flags is given up
_ONE = 0x3F80  # the bits of 1 in bfloat16


class Product(NamedTuple):
    """A product of `rows` rows with a weight matrix."""

    format: str  # of the weights: bfloat16, int8
    rows: int
    outs: int  # of the weights [outs, _INS]

    def __str__(self) -> str:
        return f"{self.format} x{self.rows}"


# One and eight rows read weights from memory, as decoding does; with many rows, as of prompts, weights stay in a cache.
PRODUCTS = tuple(
    Product(name, rows, 512 if rows > 8 else _BYTES // _INS // size)
    for name, size in (("bfloat16", 2), ("int8", 1))
    for rows in (1, 8, 64)
)


class Calibration(NamedTuple):
    """What was measured, and what follows from it."""

    milliseconds: dict[str, list[float]]  # by instruction set, the least for each of `PRODUCTS`
    chosen: str


class _Operands:
    """Arrays for all products, and the calls on them."""

    def __init__(self) -> None:
        self._weights = np.full(_BYTES // 2, _ONE, np.uint16)
        self._scales = np.ones(_BYTES // _INS, np.float32)
        self._x = np.full((max(product.rows for product in PRODUCTS), _INS), _ONE, np.uint16)
        self._y = np.empty(max(product.rows * product.outs for product in PRODUCTS), np.uint16)

    def call(self, function: Callable[..., Any], product: Product) -> None:
        """One product."""
        format = KernelFormat[product.format.upper()]
        scales = address(self._scales) if format == KernelFormat.INT8 else 0
        places = (address(self._x), address(self._weights), scales, format, 0, address(self._y))
        if not function(*places, product.rows, product.outs, _INS):
            raise MemoryError(f"{product.rows} rows of {_INS} numbers")


def calibrate(
    names: Sequence[str], seconds: float = SECONDS, clock: Callable[[], float] = time.perf_counter
) -> Calibration:
    """Measure the instruction sets `names`, the best by the CPU's flags first, on one thread, in alternating rounds.

    Takes 70 MB meanwhile, and at least three rounds.
    """
    operands, start = _Operands(), clock()
    functions = {name: Library(name).function("linear_rows", *LINEAR_ROWS, result=BOOL) for name in names}
    times: dict[str, list[list[float]]] = {name: [[] for _ in PRODUCTS] for name in names}
    rounds = 0
    while rounds < 3 or clock() - start < seconds:
        for i, product in enumerate(PRODUCTS):
            for name, function in functions.items():
                before = clock()
                operands.call(function, product)
                times[name][i].append(clock() - before)
        rounds += 1
    milliseconds = {name: [1e3 * min(each) for each in its] for name, its in times.items()}
    return Calibration(milliseconds, fastest(milliseconds))


def fastest(milliseconds: dict[str, list[float]]) -> str:
    """The one with the least geometric mean over all products, or the first if that is hardly slower."""
    means = {name: math.exp(sum(map(math.log, its)) / len(its)) for name, its in milliseconds.items()}
    first, best = next(iter(means)), min(means, key=means.__getitem__)
    return best if means[best] < means[first] * (1 - _LEAST_GAIN) else first
