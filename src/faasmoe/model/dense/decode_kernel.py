"""Attention of one new token a sequence over its keys and values, compiled: a step's decodes in one call a layer.

torch's own attention reads the keys and values of a single query at a tenth of memory speed in bfloat16, and takes
Python's time for each sequence. This reads them once, in the dtype they are kept in. Sums are float32, and a
sequence's result has the same bits whatever sequences come with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import carray
from torch import Tensor

from faasmoe.experts.kernels.compiled import like, pointer, reordering, widen
from faasmoe.model.state.kv_cache import Place

_AT_ONCE = 4  # rows of values that are added in one pass over a sum
_SEEN_AS = {torch.float32: np.empty(0, np.float32), torch.bfloat16: np.empty(0, np.uint16)}  # by compiled code


@dataclass(frozen=True, slots=True)
class Rule:
    """Parameters of a layer's attention."""

    scale: float
    window: int = 0  # how many of the last positions are seen; 0: all
    softcap: float = 0.0  # scores are bent to stay below it; 0: they are not
    sinks: Tensor | None = None  # [heads]: scores that take weight and give no value


@reordering
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


@reordering
def _score(query: Any, keys: Any, scale: Any, softcap: Any, scores: Any) -> None:
    for i in range(len(keys)):
        row, dot = keys[i], np.float32(0)
        for j in range(len(query)):
            dot += query[j] * widen(row[j])
        dot *= scale
        scores[i] = softcap * math.tanh(dot / softcap) if softcap else dot


@reordering
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


@reordering
def _add(weights: Any, values: Any, sums: Any) -> None:
    whole = len(values) - len(values) % _AT_ONCE
    for i in range(0, whole, _AT_ONCE):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        for j in range(len(sums)):
            sums[j] += (weights[i] * widen(a[j]) + weights[i + 1] * widen(b[j])) + (
                weights[i + 2] * widen(c[j]) + weights[i + 3] * widen(d[j])
            )
    for i in range(whole, len(values)):
        for j in range(len(sums)):
            sums[j] += weights[i] * widen(values[i, j])


@reordering
def _attend(
    places: Any,
    query: tuple[int, int, int],
    new_keys: tuple[int, int, int],
    new_values: tuple[int, int, int],
    sinks: int,
    out: int,
    sizes: tuple[int, int, int, int],
    rule: tuple[Any, Any, int],
    kind: Any,
) -> None:
    """As `attend`. `query`, `new_keys`, `new_values`: an address, and numbers between two sequences and two heads."""
    heads, kv_heads, dim, value_dim = sizes
    scale, softcap, window = rule
    size, group = kind.itemsize, heads // kv_heads
    scores = np.empty(places[:, 3].max(), np.float32)
    asked, sums = np.empty(dim, np.float32), np.empty(value_dim, np.float32)
    for n in range(len(places)):
        at_keys, at_values, capacity, length = places[n]
        keys = carray(pointer(at_keys), (kv_heads, capacity, dim), kind.dtype)
        values = carray(pointer(at_values), (kv_heads, capacity, value_dim), kind.dtype)
        start = max(0, length - window) if window else 0
        its = scores[: length - start]
        for head in range(kv_heads):
            at = n * new_keys[1] + head * new_keys[2]
            keys[head, length - 1] = carray(pointer(new_keys[0] + size * at), (dim,), kind.dtype)
            at = n * new_values[1] + head * new_values[2]
            values[head, length - 1] = carray(pointer(new_values[0] + size * at), (value_dim,), kind.dtype)
            for h in range(head * group, (head + 1) * group):
                at = n * query[1] + h * query[2]
                row = carray(pointer(query[0] + size * at), (dim,), kind.dtype)
                for i in range(dim):
                    asked[i] = widen(row[i])
                _score(asked, keys[head, start:length], scale, softcap, its)
                sink = carray(pointer(sinks), (heads,), np.float32)[h] if sinks else np.float32(-np.inf)
                total = _softmax(its, sink)
                sums[:] = 0
                _add(its, values[head, start:length], sums)
                answer = carray(pointer(out + size * value_dim * (n * heads + h)), (value_dim,), kind.dtype)
                for i in range(value_dim):
                    answer[i] = like(sums[i] / total, kind)


def supports(dtype: torch.dtype) -> bool:
    """Whether caches may be of this dtype."""
    return dtype in _SEEN_AS


def attend(places: list[Place], query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """Store n sequences' new keys and values at their `places`. Returns the attention to all, `[n, heads, value_dim]`.

    `query` `[n, heads, dim]`, `key` `[n, kv_heads, dim]`, `value` `[n, kv_heads, value_dim]`, all of one dtype that is
    supported; so is the result.
    """
    (count, heads, dim), (_, kv_heads, value_dim) = query.shape, value.shape
    out = torch.empty(count, heads, value_dim, dtype=key.dtype)
    query, key, value = (
        tensor if tensor.stride(2) == 1 else tensor.contiguous() for tensor in (query, key, value)
    )
    sinks = None if rule.sinks is None else rule.sinks.float().contiguous()
    _attend(
        np.array(places, np.int64),
        (query.data_ptr(), *query.stride()[:2]),
        (key.data_ptr(), *key.stride()[:2]),
        (value.data_ptr(), *value.stride()[:2]),
        0 if sinks is None else sinks.data_ptr(),
        out.data_ptr(),
        (heads, kv_heads, dim, value_dim),
        (np.float32(rule.scale), np.float32(rule.softcap), rule.window),
        _SEEN_AS[key.dtype],
    )
    return out


def warm_up(dtype: torch.dtype) -> None:
    """Compile for caches of `dtype`, which takes some seconds unless an earlier process kept it."""
    if supports(dtype):
        one = torch.zeros(1, 1, 1, dtype=dtype)
        attend([(one.data_ptr(), one.data_ptr(), 1, 1)], one, one, one, Rule(1.0))
