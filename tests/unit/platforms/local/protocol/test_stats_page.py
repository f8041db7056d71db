from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol.stats_page import (
    BUCKETS,
    InstanceStats,
    StatsTable,
    bound_of,
    bucket_of,
    map_page,
    percentile,
)

SHORTEST, LONGEST = 16_000, int(1e9 * bound_of(BUCKETS - 1))
durations = st.integers(0, LONGEST) | st.floats(0, math.log(LONGEST)).map(lambda x: min(LONGEST, int(math.exp(x))))


@pytest.fixture
def table() -> Iterator[StatsTable]:
    made = StatsTable()
    yield made
    os.close(made.fd)


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


def test_a_record_fits_into_its_page() -> None:
    assert ctypes.sizeof(InstanceStats) <= mmap.PAGESIZE


def test_a_freed_slot_is_used_again_and_zeroed(table: StatsTable) -> None:
    first, record, _ = table.take()
    second, neighbour, _ = table.take()
    assert first != second
    record.invocations, record.in_flight, neighbour.invocations = 7, 1, 9
    record.latency[BUCKETS - 1] = 3
    table.free(first)
    again, fresh, page = table.take()
    assert again == first
    assert bytes(page) == bytes(mmap.PAGESIZE)
    assert (fresh.invocations, fresh.in_flight, sum(fresh.latency)) == (0, 0, 0)
    assert neighbour.invocations == 9
    assert os.fstat(table.fd).st_size == 2 * mmap.PAGESIZE


def test_what_the_instance_writes_is_what_the_daemon_reads(table: StatsTable) -> None:
    table.take()
    slot, record, _ = table.take()
    theirs = InstanceStats.from_buffer(map_page(table.fd, slot))
    theirs.last_used = 2**63 + 1
    theirs.latency[5] += 1
    record.report = 1
    assert (record.last_used, record.latency[5], theirs.report) == (2**63 + 1, 1, 1)


@given(st.lists(st.booleans(), max_size=30))
def test_no_slot_is_handed_out_twice(takes: list[bool]) -> None:
    table = StatsTable()
    try:
        held: list[int] = []
        for take in takes:
            if take:
                slot = table.take()[0]
                assert slot not in held
                held.append(slot)
            elif held:
                table.free(held.pop(0))
        assert os.fstat(table.fd).st_size <= mmap.PAGESIZE * max(1, sum(takes))
    finally:
        os.close(table.fd)
