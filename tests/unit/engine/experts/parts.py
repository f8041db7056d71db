"""Parts of a layer's work, and replies to them."""

from __future__ import annotations

import numpy as np

from faasmoe.engine.experts.grouping import Part
from faasmoe.experts.payload import Reply, Timings
from faasmoe.platforms.base import Replies


def part(rows: list[int]) -> Part:
    """A call with one slot for each of these rows of the step, which may come more than once."""
    its = np.array(rows, np.int32)
    return Part(0, False, 1.0, np.unique(its), 0, memoryview(b""), its)


def replies(*took: tuple[float, int]) -> Replies:
    made = Replies(len(took))
    made.busy, made.memory = [busy for busy, _ in took], [memory for _, memory in took]
    return made


def reply(compute: int, cold: bool = False) -> Reply:
    return Reply(None, Timings(queue=7, load=9, compute=compute), cold)
