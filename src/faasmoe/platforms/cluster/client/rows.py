"""Which rows of a shared buffer are sent to a node: those that its calls read, each once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from faasmoe.platforms.buffer import Buffer


def runs_of(picked: Iterable[Buffer]) -> list[int]:
    """First row and number of rows, of each run of neighbours among the rows in `picked` (int32 each), in order."""
    rows = sorted(set().union(*(memoryview(each).cast("B").cast("i").tolist() for each in picked)))
    runs: list[int] = []
    for row in rows:
        if runs and runs[-2] + runs[-1] == row:
            runs[-1] += 1
        else:
            runs += (row, 1)
    return runs


def views_of(shared: memoryview, row: int, runs: Sequence[int]) -> list[memoryview]:
    """The bytes of these runs of rows, of `row` bytes each."""
    return [shared[first * row : (first + rows) * row] for first, rows in zip(runs[::2], runs[1::2], strict=True)]
