"""Measures which instruction set is the fastest here: wide vectors slow some CPUs down more than they save.

Products of few rows read weights from memory, as decoding does, or from a cache, as small models do; those of many
rows, as of prompts, use weights from a cache again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, log
from statistics import fmean
from typing import Any, Literal

import numpy as np

from faasmoe.experts import dtypes
from faasmoe.experts.arrays import address
from faasmoe.experts.formats import conversions
from faasmoe.experts.formats.base import Matrix, WeightFormat
from faasmoe.experts.formats.registry import DENSE, by_name
from faasmoe.experts.kernels.calibration import Measurement
from faasmoe.experts.kernels.choice import MANY_ROWS
from faasmoe.experts.kernels.library import BOOL, LINEAR_ROWS, Library

SECONDS = 1.2  # of the processor, in which rounds begin
INS = 2048  # columns of the weights
Source = Literal["memory", "cache"]
# Bytes of the weights: larger than most caches, and about a core's own cache.
SIZES: dict[Source, int] = {"memory": 64 << 20, "cache": 1 << 20}
PRODUCTS: tuple[tuple[int, Source], ...] = (
    *((1, "memory"), (8, "memory")),
    *((1, "cache"), (8, "cache"), (MANY_ROWS, "cache"), (512, "cache")),
)

_SAMPLE_ROWS = 64  # of weights that are converted; they repeat
_LEAST_SECONDS = 0.002  # of calls one after the other: the first may have to bring weights into the cache again
_HOPELESS = 1.5  # times the least time of all: an instruction set that takes longer is in no further round

Function = Callable[..., Any]
Clock = Callable[[], float]


def calibrate(
    names: Sequence[str], seconds: float = SECONDS, clock: Clock = time.thread_time
) -> list[Measurement]:
    """Measure the instruction sets `names` with every format that weights can be converted to, on one thread.

    Times are those of the processor, so that other programs change them little. Takes some 70 MB meanwhile. Of each
    format one round runs, however long it takes.
    """
    functions = {name: Library(name).function("linear_rows", *LINEAR_ROWS, result=BOOL) for name in names}
    formats = [DENSE, *map(by_name, conversions())]
    found = [_of_format(format, functions, seconds / len(formats), clock) for format in formats]
    return [measurement for its in found for measurement in its]


def least_milliseconds(call: Callable[[], Any], clock: Clock = time.thread_time) -> float:
    """The least time of some calls, one at least."""
    start, least = clock(), inf
    end = start
    while end - start < _LEAST_SECONDS:
        before = end
        call()
        end = clock()
        least = min(least, end - before)
    return 1e3 * least


def _of_format(
    format: WeightFormat, functions: Mapping[str, Function], seconds: float, clock: Clock
) -> list[Measurement]:
    """All products with weights of one format, in rounds that alternate between instruction sets."""
    start = clock()
    weights = {source: _weights(format, nbytes) for source, nbytes in SIZES.items()}
    products = [_Product(rows, format, weights[source]) for rows, source in PRODUCTS]
    times = [dict.fromkeys(functions, inf) for _ in products]
    racing = dict(functions)
    while True:
        for product, its in zip(products, times, strict=True):
            for name, function in racing.items():
                its[name] = min(its[name], least_milliseconds(partial(product.run, function), clock))
        if clock() - start >= seconds:
            break
        racing = _still_racing(racing, times)
    name = products[0].format.name.lower()
    return [Measurement(name, rows, source, its) for (rows, source), its in zip(PRODUCTS, times, strict=True)]


def _still_racing(racing: Mapping[str, Function], times: Sequence[Mapping[str, float]]) -> dict[str, Function]:
    means = {name: fmean(log(each[name]) for each in times) for name in racing}
    limit = min(means.values()) + log(_HOPELESS)
    return {name: function for name, function in racing.items() if means[name] <= limit}


class _Product:
    """One product, ready to be run by any instruction set."""

    def __init__(self, rows: int, format: WeightFormat, weights: Matrix) -> None:
        read = format.addresses(weights)
        if read is None:
            raise ValueError(f"no kernel reads {format.name} {tuple(weights.shape)}")
        outs, ins = weights.shape
        self.format = read.format
        self._arrays = weights, _made_up(rows), np.empty((rows, outs), dtypes.BFLOAT16)
        self._arguments = (address(self._arrays[1]), *read, 0, address(self._arrays[2]), rows, outs, ins)

    def run(self, function: Function) -> None:
        """Compute it. Raises `MemoryError`."""
        if not function(*self._arguments):
            raise MemoryError("no memory for the rows of a product")


def _weights(format: WeightFormat, nbytes: int) -> Any:
    """About so many bytes of weights in a format."""
    plain = _made_up(_SAMPLE_ROWS)
    sample = plain if format is DENSE else format.convert(plain)
    times = max(1, nbytes // sample.nbytes)
    arrays = [np.tile(each, (times, *(1 for _ in each.shape[1:]))) for each in format.arrays(sample)]
    return arrays[0] if format is DENSE else type(sample)(*arrays)


def _made_up(rows: int) -> Any:
    return dtypes.narrowed(np.random.default_rng(rows).standard_normal((rows, INS), np.float32))
