"""Attention of one new token a sequence over its latents, compiled (`c/dense/latent.c`)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY
from faasmoe.model.dense.decode_kernel import MOST_DIM, Rule, form_of_places, rows_of
from faasmoe.model.dense.replay.operation import ATTEND_LATENT, Row
from faasmoe.model.state.kv_cache import Place

_STEP = 32  # numbers that the widest kernel takes at once: a latent has a multiple of it
_LATENT = struct.Struct("16q2f")  # `struct latent` there
_attend_latent = LIBRARY.function("attend_latent", ADDRESS, ADDRESS, INT)


@dataclass(frozen=True, slots=True, eq=False)
class Expansion:
    """How keys and values of all heads are made of latents."""

    weight: Tensor  # [heads, nope + value_dim, rank], contiguous: of each head W_UK and W_UV
    nope: int  # numbers of a head's key that are made of latents; those that have a position follow
    rope: int  # numbers of a key that have a position, one for all heads

    @property
    def rank(self) -> int:
        """Numbers of a latent."""
        return self.weight.shape[2]

    @property
    def value_dim(self) -> int:
        """Numbers of a head's value."""
        return self.weight.shape[1] - self.nope


def supports(query: Tensor, key: Tensor, expansion: Expansion) -> bool:
    """Whether these, `[1, heads, T, nope + rope]` and `[1, 1, T, rank + rope]`, are what the kernel takes."""
    dtype = expansion.weight.dtype
    fits = (
        expansion.rank + expansion.rope <= MOST_DIM and expansion.rank % _STEP == 0 and expansion.nope <= MOST_DIM
    )
    return fits and query.dtype == key.dtype == dtype and dtype in (torch.float32, torch.bfloat16)


class LatentDecode:
    """Attention of new tokens whose queries and latents are, or will be, in given memory."""

    def __init__(self, query: Tensor, key: Tensor, out: Tensor, expansion: Expansion, rule: Rule) -> None:
        """`query` `[1, heads, n, nope + rope]`, `key` `[1, 1, n, rank + rope]`; `out` `[1, n, heads, value_dim]`.

        `out` is contiguous. All are of the dtype of `expansion`, and `supports` takes them. Raises `ValueError` for
        other shapes.
        """
        heads, _, rank = expansion.weight.shape
        n, rope = query.shape[2], expansion.rope
        shapes = (1, heads, n, expansion.nope + rope), (1, 1, n, rank + rope), (1, n, heads, expansion.value_dim)
        if (query.shape, key.shape, out.shape) != shapes:
            raise ValueError(f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(out.shape)} must be {shapes}")
        sinks = None if rule.sinks is None else rule.sinks.float().contiguous()
        self._memory = query, key, out, sinks, expansion.weight  # stays alive
        self._count, self._form = n, form_of_places(n)
        self._places = bytearray(self._form.size)
        self._task = np.frombuffer(_LATENT.pack(
            *rows_of(query), *rows_of(key), out.data_ptr(), 0 if sinks is None else sinks.data_ptr(),
            expansion.weight.data_ptr(), heads, rank, rope, expansion.nope, expansion.value_dim, rule.window,
            key.dtype == torch.float32, rule.scale, rule.softcap,
        ), np.uint8)  # fmt: skip
        self._words = address(self._task), address(self._places), n

    def place(self, places: Sequence[Place]) -> None:
        """Store latents at these places from now on, one a token. Raises `ValueError` for another number."""
        if len(places) != self._count:
            raise ValueError(f"{len(places)} places for {self._count} sequences")
        self._form.pack_into(self._places, 0, *chain.from_iterable(places))

    def run(self) -> None:
        """Store the latents, and write the attention to all to `out`."""
        _attend_latent(*self._words)

    @property
    def row(self) -> Row:
        """What `run` does, as a step. This object stays alive."""
        return ATTEND_LATENT, *self._words
