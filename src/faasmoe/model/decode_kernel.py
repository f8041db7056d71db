"""Attention of one new token a sequence over its keys and values, compiled: a step's decodes in one call a layer.

torch's own attention reads the keys and values of a single query at a tenth of memory speed in bfloat16, and takes
Python's time for each sequence. This reads them once, in the dtype they are kept in. Sums are float32, and a
sequence's result has the same bits whatever sequences come with it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import carray, njit, types
from numba.extending import overload
from torch import Tensor

from faasmoe.experts.matvec import pointer

_AT_ONCE = 4  # rows of values that are added in one pass over a sum
_BITS = {torch.float32: torch.float32, torch.bfloat16: torch.uint16}  # as what numpy sees them

Place = tuple[int, int, int, int]
"""Where a sequence has its keys and values in one layer: addresses of both, tokens that they have memory for, and
tokens in use, the new one included."""


def _compiled(function: Any) -> Any:
    """Sums may be reordered to fit vectors: the same way in every call."""
    options = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder to keep it in
        return njit(**options)(function)


def _widen(value: Any) -> Any:
    """In compiled code: a cache's element as float32."""
    raise NotImplementedError


@overload(_widen, strict=False)  # type: ignore[untyped-decorator]  # not strict: only annotations differ
def _widen_by_type(value: Any) -> Any:
    if value == types.uint16:  # the bits of a bfloat16, which are a float32's upper half
        return lambda value: np.uint32(np.uint32(value) << 16).view(np.float32)
    return lambda value: value


@_compiled
def _exp(x: Any) -> Any:
    """e to the power of `x`, at most 0, to 4e-6: 2 to a whole power, and Taylor's series for the rest.

    Written out because a loop over it becomes vectors, which one over the C library's does not.
    """
    power = max(x, np.float32(-87)) * np.float32(math.log2(math.e))
    whole = math.floor(power + np.float32(0.5))
    y = np.float32(power - whole) * np.float32(math.log(2))
    series = np.float32(1 / 720)
    for factor in (120, 24, 6, 2, 1, 1):
        series = series * y + np.float32(1 / factor)
    return series * np.uint32((np.int32(whole) + 127) << 23).view(np.float32)


@_compiled
def _score(query: Any, keys: Any, scale: Any, softcap: Any, scores: Any) -> None:
    for i in range(len(keys)):
        row, dot = keys[i], np.float32(0)
        for j in range(len(query)):
            dot += query[j] * _widen(row[j])
        dot *= scale
        scores[i] = softcap * math.tanh(dot / softcap) if softcap else dot


@_compiled
def _softmax(scores: Any, sink: Any) -> Any:
    """Turn `scores` into weights that have to be divided by the sum that is returned."""
    most = sink
    for score in scores:
        most = max(most, score)
    total = np.float32(math.exp(sink - most))
    for i in range(len(scores)):
        scores[i] = _exp(scores[i] - most)
        total += scores[i]
    return total


@_compiled
def _add(weights: Any, values: Any, sums: Any) -> None:
    whole = len(values) - len(values) % _AT_ONCE
    for i in range(0, whole, _AT_ONCE):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        for j in range(len(sums)):
            sums[j] += (weights[i] * _widen(a[j]) + weights[i + 1] * _widen(b[j])) + (
                weights[i + 2] * _widen(c[j]) + weights[i + 3] * _widen(d[j])
            )
    for i in range(whole, len(values)):
        for j in range(len(sums)):
            sums[j] += weights[i] * _widen(values[i, j])


@_compiled
def _attend(
    places: Any,
    query: Any,
    new_keys: Any,
    new_values: Any,
    sinks: Any,
    out: Any,
    scale: Any,
    softcap: Any,
    window: int,
) -> None:
    kv_heads = new_keys.shape[1]
    group = query.shape[1] // kv_heads
    scores = np.empty(places[:, 3].max(), np.float32)
    for n in range(len(places)):
        at_keys, at_values, capacity, length = places[n]
        keys = carray(pointer(at_keys), (kv_heads, capacity, query.shape[2]), new_keys.dtype)
        values = carray(pointer(at_values), (kv_heads, capacity, out.shape[2]), new_values.dtype)
        start = max(0, length - window) if window else 0
        its = scores[: length - start]
        for head in range(kv_heads):
            keys[head, length - 1] = new_keys[n, head]
            values[head, length - 1] = new_values[n, head]
            for h in range(head * group, (head + 1) * group):
                _score(query[n, h], keys[head, start:length], scale, softcap, its)
                total = _softmax(its, sinks[h])
                sums = out[n, h]
                sums[:] = 0
                _add(its, values[head, start:length], sums)
                sums /= total


def supports(dtype: torch.dtype) -> bool:
    """Whether caches may be of this dtype."""
    return dtype in _BITS


def attend(
    places: list[Place],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    """Store n sequences' new keys and values at their `places`. Returns the attention to all, `[n, heads, value_dim]`.

    `query` `[n, heads, dim]`, `key` `[n, kv_heads, dim]`, `value` `[n, kv_heads, value_dim]`, all of one dtype that is
    supported; the result is float32. `window`: how many of the last positions are seen, 0 for all. `softcap`: scores
    are bent to stay below it, 0 for not. `sinks` `[heads]`: scores that take weight and give no value.
    """
    bits = _BITS[key.dtype]
    out = torch.empty(*query.shape[:2], value.shape[2])
    if sinks is None:
        sinks = torch.full(query.shape[1:2], -math.inf)
    _attend(
        np.array(places, np.int64),
        query.float().contiguous().numpy(),
        key.contiguous().view(bits).numpy(),
        value.contiguous().view(bits).numpy(),
        sinks.float().contiguous().numpy(),
        out.numpy(),
        np.float32(scale),
        np.float32(softcap),
        window,
    )
    return out


def warm_up(dtype: torch.dtype) -> None:
    """Compile for caches of `dtype`, which takes some seconds unless an earlier process kept it."""
    if supports(dtype):
        one = torch.zeros(1, 1, 1, dtype=dtype)
        attend([(one.data_ptr(), one.data_ptr(), 1, 1)], one, one, one, 1.0)
