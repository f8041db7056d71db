"""Durations of calls, counted in buckets."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

# Buckets grow by a quarter of an octave: a percentile is off by a fifth at most.
_SHORTEST_NS = 16_000
_PER_OCTAVE = 4
BUCKETS = 88  # up to a minute
# nanoseconds: the longest duration of each bucket
BOUNDS_NS = [_SHORTEST_NS * 2 ** (bucket / _PER_OCTAVE) for bucket in range(BUCKETS)]


def bucket_of(nanoseconds: int) -> int:
    """The bucket in which a duration is counted."""
    return bisect_left(BOUNDS_NS, nanoseconds, hi=BUCKETS - 1)


def bound_of(bucket: int) -> float:
    """The longest duration counted in a bucket, in seconds."""
    return BOUNDS_NS[bucket] / 1e9


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Seconds within which `share` of the calls were answered; None if there were none."""
    wanted = math.ceil(share * sum(counts))
    if wanted == 0:
        return None
    return bound_of(next(bucket for bucket, seen in enumerate(accumulate(counts)) if seen >= wanted))
