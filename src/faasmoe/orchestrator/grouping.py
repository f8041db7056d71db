"""From a layer's routing to the calls it takes: slots by block, and large shares of the work in several parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from faasmoe.experts.payload import Slots

# An expert takes as long for so many rows as for one: reading its weights takes the time (`benchmarks.linear`).
_FREE_ROWS = 3


@dataclass(slots=True)
class Part:
    """What one call does: some experts of a block, for some rows of the layer."""

    block: int
    work: float = 0.0  # in readings of an expert
    rows: list[int] = field(default_factory=list)  # ascending
    slots: Slots = field(default_factory=Slots)  # whose rows are places in `rows`

    def add(self, row: int, expert: int, weight: float) -> None:
        """One more slot; rows must come in order."""
        if not self.rows or self.rows[-1] != row:
            self.rows.append(row)
        self.slots.row.append(len(self.rows) - 1)
        self.slots.expert.append(expert)
        self.slots.weight.append(weight)


class Grouping:
    """The blocks of a layer, which hold its experts in order."""

    def __init__(self, sizes: Sequence[int], cores: int) -> None:
        """`sizes` of the blocks; `cores` that calls can run on side by side."""
        self._cores = cores
        self._block_of = [block for block, size in enumerate(sizes) for _ in range(size)]
        self._place_of = [place for size in sizes for place in range(size)]

    def parts(self, index: Sequence[Sequence[int]], weight: Sequence[Sequence[float]]) -> list[Part]:
        """The calls for `index`, `weight` `[T, K]`, by block and expert; slots whose index is no expert are skipped.

        A block with more than a core's share of the work is called several times, each for some of its experts.
        """
        counts: dict[int, int] = {}  # rows by expert
        for experts in index:
            for expert in experts:
                counts[expert] = counts.get(expert, 0) + 1
        part_of = self._split({e: counts[e] for e in sorted(counts) if e < len(self._block_of)})
        for row, (experts, weights) in enumerate(zip(index, weight, strict=True)):
            for expert, share in zip(experts, weights, strict=True):
                if expert in part_of:
                    part_of[expert].add(row, self._place_of[expert], share)
        return list({id(part): part for part in part_of.values()}.values())

    def _split(self, counts: dict[int, int]) -> dict[int, Part]:
        """A part for each expert. `counts` are rows by expert, in order."""
        work = {expert: max(1.0, rows / _FREE_ROWS) for expert, rows in counts.items()}
        most = sum(work.values()) / self._cores
        part_of: dict[int, Part] = {}
        part: Part | None = None
        for expert, its_work in work.items():
            block = self._block_of[expert]
            if part is None or part.block != block or part.work + its_work > most:
                part = Part(block)
            part.work += its_work
            part_of[expert] = part
        return part_of
