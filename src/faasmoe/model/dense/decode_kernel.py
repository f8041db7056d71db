"""Attention of one new token a sequence over its keys and values, compiled: a step's decodes in one call a layer.

torch's own attention reads the keys and values of a single query at a tenth of memory speed in bfloat16, and takes
Python's time for each sequence. This reads them once, in the dtype they are kept in. Sums are float32, and a
sequence's result has the same bits whatever sequences come with it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY
from faasmoe.model.dense.replay.operation import ATTEND, Row
from faasmoe.model.state.kv_cache import Place

MOST_DIM = 1024  # numbers of a head: MOST_DIM in heads.h
_ATTENTION = struct.Struct("17q2f")  # `struct attention` there
_attend = LIBRARY.function("attend", ADDRESS, ADDRESS, INT)


@dataclass(frozen=True, slots=True)
class Rule:
    """Parameters of a layer's attention."""

    scale: float
    window: int = 0  # how many of the last positions are seen; 0: all
    softcap: float = 0.0  # scores are bent to stay below it; 0: they are not
    sinks: Tensor | None = None  # [heads]: scores that take weight and give no value


def supports(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether these, `[..., dim]`, are of one dtype that the kernel has, and their heads not too wide for it."""
    dtype = key.dtype
    narrow = key.shape[-1] <= MOST_DIM and value.shape[-1] <= MOST_DIM
    return narrow and query.dtype == dtype == value.dtype and dtype in (torch.float32, torch.bfloat16)


class Decode:
    """Attention of new tokens whose queries, keys and values are, or will be, in given memory."""

    def __init__(self, n: int, query: Tensor, key: Tensor, value: Tensor, out: Tensor, rule: Rule) -> None:
        """`query` `[1, heads, n, dim]`, `key` `[1, kv_heads, n, dim]` and `value` `[1, kv_heads, n, value_dim]`.

        `out` is contiguous `[1, n, heads, value_dim]`. All are of one dtype that is supported, and `in_place`.
        Raises `ValueError` for other shapes.
        """
        (_, heads, count, dim), (_, kv_heads, _, value_dim) = query.shape, value.shape
        if n != count or key.shape != (1, kv_heads, n, dim) or value.shape[2] != n or heads % kv_heads:
            shapes = ", ".join(str(tuple(each.shape)) for each in (query, key, value))
            raise ValueError(f"{n} sequences for {shapes}")
        sinks = None if rule.sinks is None else rule.sinks.float().contiguous()
        self._memory = query, key, value, out, sinks  # stays alive
        self._count, self._form = n, form_of_places(n)
        self._places = bytearray(self._form.size)
        self._task = np.frombuffer(_ATTENTION.pack(
            *rows_of(query), *rows_of(key), *rows_of(value), out.data_ptr(), 0 if sinks is None else sinks.data_ptr(),
            heads, kv_heads, dim, value_dim, rule.window, key.dtype == torch.float32, rule.scale, rule.softcap,
        ), np.uint8)  # fmt: skip
        self._words = address(self._task), address(self._places), n

    def place(self, places: list[Place]) -> None:
        """Store keys and values at these places from now on, one a token. Raises `ValueError` for another number."""
        if len(places) != self._count:
            raise ValueError(f"{len(places)} places for {self._count} sequences")
        self._form.pack_into(self._places, 0, *chain.from_iterable(places))

    def run(self) -> None:
        """Store the keys and values, and write the attention to all to `out`."""
        _attend(*self._words)

    @property
    def row(self) -> Row:
        """What `run` does, as a step. This object stays alive."""
        return ATTEND, *self._words


@cache
def form_of_places(n: int) -> struct.Struct:
    """So many of `struct place` in heads.h."""
    return struct.Struct(f"{4 * n}q")


def in_place(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `Decode` can read these where they are."""
    return all(each.stride(3) == 1 for each in (query, key, value))


def rows_of(tensor: Tensor) -> tuple[int, int, int]:
    """`struct rows` in heads.h."""
    _, heads, sequences, _ = tensor.stride()
    return tensor.data_ptr(), sequences, heads
