"""Groups a layer's routing into calls: the slots of a block make a part, and large shares of the work several parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faasmoe.experts.kernels.compiled import compiled

WORTH_SPLITTING = 4 << 20  # bytes of an expert, which take twice as long to read as a call takes
# An expert takes as long for so many rows as for one: reading its weights takes the time (`benchmarks.linear`).
_FREE_ROWS = 3
_SLOT_WORDS = 3  # a slot's row, expert and weight


@dataclass(frozen=True, slots=True)
class Part:
    """The work of one call: S slots, of some experts of a block, for some rows of the layer."""

    block: int
    work: float  # in readings of an expert
    rows: NDArray[np.int32]  # of the layer that are sent, ascending
    slots: (
        memoryview  # as an envelope has them: int32 [S] places in `rows`, int32 [S] experts, float32 [S] weights
    )
    slot_rows: NDArray[np.int32]  # [S] of the layer


class Grouping:
    """The blocks of a layer, which hold its experts in order."""

    def __init__(self, sizes: Sequence[int], parallelism: int) -> None:
        """`sizes` of the blocks in experts; `parallelism` is how many calls compute side by side."""
        self._parallelism = parallelism
        self._block_of = np.repeat(np.arange(len(sizes)), sizes)
        self._place_of = np.concatenate([np.arange(size) for size in sizes])

    def parts(self, index: ArrayLike, weight: ArrayLike) -> list[Part]:
        """The calls for `index`, `weight` `[T, K]`, by block and expert; slots whose index is no expert are skipped.

        A block with more of the work than an even share is called several times, each for some of its experts.
        """
        index, weight = np.ascontiguousarray(index, np.int64), np.ascontiguousarray(weight, np.float32)
        blocks, work, slots, packed, rows, counts, slot_rows = _cut(
            index, weight, self._block_of, self._place_of, self._parallelism
        )
        data, parts, first = memoryview(packed).cast("B"), [], 0
        each = zip(blocks.tolist(), work.tolist(), slots.tolist(), counts.tolist(), strict=True)
        for block, its_work, its_slots, its_rows in each:
            last, word = first + its_slots, _SLOT_WORDS * packed.itemsize
            its = data[word * first : word * last]
            parts.append(Part(block, its_work, rows[first : first + its_rows], its, slot_rows[first:last]))
            first = last
        return parts


@compiled
def _split(index: Any, block_of: Any, parallelism: int) -> Any:
    """By expert the number of its part, -1 if it has no rows; by part its block, its work and how many slots it has."""
    experts = len(block_of)
    rows = np.zeros(experts, np.int64)
    for expert in index.flat:
        if 0 <= expert < experts:
            rows[expert] += 1
    work = np.zeros(experts, np.float64)
    for expert in range(experts):
        if rows[expert]:
            work[expert] = max(1.0, rows[expert] / _FREE_ROWS)
    most = work.sum() / parallelism
    part_of = np.full(experts, -1, np.int64)
    blocks, its_work, slots = (
        np.zeros(experts, np.int64),
        np.zeros(experts, np.float64),
        np.zeros(experts, np.int64),
    )
    part = -1
    for expert in range(experts):
        if not rows[expert]:
            continue
        if part < 0 or blocks[part] != block_of[expert] or its_work[part] + work[expert] > most:
            part += 1
            blocks[part] = block_of[expert]
        part_of[expert] = part
        its_work[part] += work[expert]
        slots[part] += rows[expert]
    return part_of, blocks[: part + 1], its_work[: part + 1], slots[: part + 1]


@compiled
def _pack(index: Any, weight: Any, part_of: Any, place_of: Any, slots: Any) -> Any:
    """`Part.slots` of all parts, one after the other; rows; by part how many they are; `Part.slot_rows`.

    The rows of a part start where its slots do: there are never more.
    """
    total = slots.sum()
    packed = np.empty(_SLOT_WORDS * total, np.int32)
    weights = packed.view(np.float32)
    rows, slot_rows = np.empty(total, np.int32), np.empty(total, np.int32)
    first = np.cumsum(slots) - slots
    filled, counts = np.zeros(len(slots), np.int64), np.zeros(len(slots), np.int64)
    for row in range(index.shape[0]):
        for k in range(index.shape[1]):
            expert = index[row, k]
            part = part_of[expert] if 0 <= expert < len(part_of) else -1
            if part < 0:
                continue
            begin, slot = first[part], filled[part]
            if counts[part] == 0 or rows[begin + counts[part] - 1] != row:
                rows[begin + counts[part]] = row
                counts[part] += 1
            at = _SLOT_WORDS * begin + slot
            packed[at] = counts[part] - 1
            packed[at + slots[part]] = place_of[expert]
            weights[at + 2 * slots[part]] = weight[row, k]
            slot_rows[begin + slot] = row
            filled[part] = slot + 1
    return packed, rows, counts, slot_rows


@compiled
def _cut(index: Any, weight: Any, block_of: Any, place_of: Any, parallelism: int) -> Any:
    """`_split` but for its first, then `_pack`."""
    part_of, blocks, work, slots = _split(index, block_of, parallelism)
    packed, rows, counts, slot_rows = _pack(index, weight, part_of, place_of, slots)
    return blocks, work, slots, packed, rows, counts, slot_rows


@compiled
def add_rows(total: Any, rows: Any, sums: Any) -> None:
    """Add each row of `sums` `[n, H]` to that one of `total` `[T, H]` that `rows` `[n]` names, all float32."""
    for i in range(len(rows)):
        row = rows[i]
        for column in range(total.shape[1]):
            total[row, column] += sums[i, column]


def warm_up() -> None:
    """Compile the kernels. This takes some seconds unless they are in the cache."""
    (part,) = Grouping([1], 1).parts([[0]], [[1.0]])
    add_rows(np.zeros((1, 1), np.float32), part.rows, np.zeros((1, 1), np.float32))
