from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.latency import BUCKETS, bound_of, bucket_of, percentile

SHORTEST, LONGEST = 16_000, int(1e9 * bound_of(BUCKETS - 1))
durations = st.integers(0, LONGEST) | st.floats(0, math.log(LONGEST)).map(lambda x: min(LONGEST, int(math.exp(x))))


@given(durations)
def test_a_duration_is_within_its_bound_and_the_bound_is_near(nanoseconds: int) -> None:
    bound = bound_of(bucket_of(nanoseconds)) * 1e9
    assert nanoseconds <= bound * (1 + 1e-12)
    assert bound <= max(nanoseconds, SHORTEST) * 2**0.25 * (1 + 1e-9)


@given(durations, durations)
def test_longer_durations_are_never_in_lower_buckets(one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    assert 0 <= bucket_of(shorter) <= bucket_of(longer) < BUCKETS


@given(st.integers(LONGEST + 1, 2**64 - 1))
def test_what_takes_too_long_is_in_the_last_bucket(nanoseconds: int) -> None:
    assert bucket_of(nanoseconds) == BUCKETS - 1


def test_bounds_grow_and_end_near_a_minute() -> None:
    bounds = [bound_of(bucket) for bucket in range(BUCKETS)]
    assert bounds == sorted(set(bounds))
    assert bounds[0] == 16e-6
    assert bounds[4] == 32e-6
    assert 50 < bounds[-1] < 60


def test_percentiles_of_known_counts() -> None:
    counts = [0] * BUCKETS
    assert percentile(counts, 0.5) is None
    counts[3] = 1
    assert percentile(counts, 0.5) == percentile(counts, 0.99) == bound_of(3)
    counts[3], counts[10] = 50, 50
    assert percentile(counts, 0.5) == bound_of(3)
    assert percentile(counts, 0.51) == bound_of(10)
    counts[3], counts[10], counts[80] = 90, 9, 1
    assert percentile(counts, 0.99) == bound_of(10)
    assert percentile(counts, 0.999) == percentile(counts, 1.0) == bound_of(80)


@given(st.lists(durations, min_size=1, max_size=40), st.sampled_from([0.01, 0.25, 0.5, 0.75, 0.99, 1.0]))
def test_a_percentile_is_that_of_the_sorted_durations(calls: list[int], share: float) -> None:
    counts = [0] * BUCKETS
    for nanoseconds in calls:
        counts[bucket_of(nanoseconds)] += 1
    rank = math.ceil(share * len(calls))
    assert percentile(counts, share) == bound_of(bucket_of(sorted(calls)[rank - 1]))
