"""Groups a layer's routing into calls, and combines their replies.

The slots of a block make a part, and large shares of the work several parts. Where a block is cut changes no bit of a
row's sum ([decision 47](docs/decisions/0047-a-cut-block-adds-up-as-a-whole-one.md)).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.dtypes import BFLOAT16
from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY

WORTH_SPLITTING = 4 << 20  # bytes of an expert, which take twice as long to read as a call takes
_SLOT_WORDS = 3  # a slot's row, expert and weight
# Structs of grouping.c: `cut`, `part`, `expert`, `combine`, `answer`
_CUT, _PART, _EXPERT, _COMBINE, _ANSWER = map(struct.Struct, ("14q", "2qd4q", "2q", "5q", "4q"))
_cut = LIBRARY.function("cut", ADDRESS, result=INT)
_combine = LIBRARY.function("combine", ADDRESS)


class Part(NamedTuple):  # made in half the time of a frozen dataclass, for each call of each layer
    """The work of one call: S slots, of some experts of a block, for some rows of the layer."""

    block: int
    follows: bool  # another part of its block
    work: float  # in readings of an expert
    rows: NDArray[np.int32]  # of the layer that are sent, ascending; one that comes slot by slot is there for each
    rows_at: int  # their address
    slots: memoryview  # of an envelope: int32 [S] places in `rows`, int32 [S] experts, float32 [S] weights
    slot_rows: NDArray[np.int32]  # [S] of the layer


class Grouping:
    """The blocks of a layer, which hold its experts in order. For one thread at a time: its memory is used again."""

    def __init__(self, sizes: Sequence[int], parallelism: int) -> None:
        """`sizes` of the blocks in experts; `parallelism` is how many calls compute side by side."""
        self._parallelism, self._count = parallelism, sum(sizes)
        self._block_of = np.repeat(np.arange(len(sizes)), sizes)
        self._place_of = np.concatenate([np.arange(size) for size in sizes])
        self._experts, self._parts = (bytearray(each.size * self._count) for each in (_EXPERT, _PART))
        self._fixed = tuple(map(address, (self._block_of, self._place_of, self._experts, self._parts)))

    def parts(self, index: ArrayLike, weight: ArrayLike) -> list[Part]:
        """The calls for `index`, `weight` `[T, K]`, by block and expert; slots whose index is no expert are skipped.

        `weight` is float32, or bits of bfloat16.
        A block with more of the work than an even share is called several times, each for some of its experts.
        Raises `ValueError` if the shapes differ.
        """
        wide = getattr(weight, "dtype", None) != BFLOAT16
        index, weight = (
            np.ascontiguousarray(index, np.int64),
            np.ascontiguousarray(weight, np.float32 if wide else None),
        )
        if index.shape != weight.shape:
            raise ValueError(f"experts {index.shape} with weights {weight.shape}")
        (tokens, top_k), most = index.shape, index.size
        words = np.empty((_SLOT_WORDS + 2) * most, np.int32)  # slots, rows, and rows of slots
        slots_at = address(words)
        rows_at = slots_at + 4 * _SLOT_WORDS * most
        block_of, place_of, experts, table = self._fixed
        count = _cut(_CUT.pack(
            address(index), address(weight), wide, tokens, top_k, block_of, place_of, experts, self._count,
            self._parallelism, table, slots_at, rows_at, rows_at + 4 * most,
        ))  # fmt: skip
        data = words.data.cast("B")
        rows, slot_rows = words[_SLOT_WORDS * most : -most], words[-most:]
        parts = []
        made = memoryview(self._parts)[: count * _PART.size]
        for block, follows, work, slots, its_rows, first, _ in _PART.iter_unpack(made):
            last, word = first + slots, 4 * _SLOT_WORDS
            sent, its = rows[first : first + its_rows], data[word * first : word * last]
            parts.append(Part(block, bool(follows), work, sent, rows_at + 4 * first, its, slot_rows[first:last]))
        return parts


def room_for_sums(like: Tensor) -> Tensor:
    """Memory for the result of `combine`, of the shape of `like` `[T, H]`: bfloat16 if `like` is, else float32.

    To be had before functions run: after them the code that allocates is in no cache, and takes as long as ten sums.
    """
    return torch.empty(like.shape, dtype=torch.bfloat16 if like.dtype == torch.bfloat16 else torch.float32)


def combine(parts: Sequence[Part], sums: Sequence[NDArray[np.float32]], out: Tensor) -> None:
    """Sum up by row of the layer what came for each part, `[rows, H]` and contiguous.

    What came for a block's parts is added in the order of its experts, then the blocks in theirs, in float32. The sum
    is rounded once, into `out` `[T, H]`.
    """
    if not parts:
        out.zero_()
        return
    tokens, width = out.shape
    answers = [
        _ANSWER.pack(part.rows_at, address(its), len(its), part.follows)
        for part, its in zip(parts, sums, strict=True)
    ]
    task = _COMBINE.pack(out.data_ptr(), tokens, width, out.dtype == torch.float32, len(parts))
    _combine(task + b"".join(answers))
