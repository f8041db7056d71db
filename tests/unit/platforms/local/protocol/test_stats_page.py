from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.latency import BUCKETS
from faasmoe.platforms.local.protocol.stats_page import InstanceStats, StatsTable, map_page


@pytest.fixture
def table() -> Iterator[StatsTable]:
    made = StatsTable()
    yield made
    os.close(made.fd)


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
