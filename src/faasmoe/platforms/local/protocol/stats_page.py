"""The stats page of an instance: memory that it shares with the daemon.

Only the instance writes, but for `report`; numbers are read while they are written, which is good enough for
deciding and for looking.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from faasmoe.platforms.latency import BUCKETS


class InstanceStats(ctypes.Structure):
    """One instance's figures. Times are nanoseconds of `time.monotonic_ns`; 0 where it has not happened yet."""

    _fields_ = (
        ("in_flight", ctypes.c_uint32),  # calls that wait or run
        ("draining", ctypes.c_uint32),  # it refuses calls
        ("report", ctypes.c_uint32),  # the daemon wants to hear when a call has ended
        ("invocations", ctypes.c_uint64),
        ("busy", ctypes.c_uint64),  # how long it worked on those
        ("last_used", ctypes.c_uint64),
        ("busy_since", ctypes.c_uint64),  # since when it has always had a call
        ("activated", ctypes.c_uint64),
        ("forked", ctypes.c_uint64),  # the process runs
        ("mapped", ctypes.c_uint64),  # the function is loaded
        ("touched", ctypes.c_uint64),  # the first call is answered
        ("first_call", ctypes.c_uint64),  # how long that call took
        ("latency", ctypes.c_uint64 * BUCKETS),
    )


class StatsTable:
    """Pages for the records of all instances, one each, in one piece of memory without a name."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("faasmoe-records", os.MFD_CLOEXEC)
        self._free: list[int] = []
        self._slots = 0

    def take(self) -> tuple[int, InstanceStats, mmap.mmap]:
        """A free slot and its record, all zero. Give it back by `free`."""
        if not self._free:
            self._slots += 1
            os.ftruncate(self.fd, self._slots * mmap.PAGESIZE)
            self._free.append(self._slots - 1)
        slot = self._free[-1]
        page = map_page(self.fd, slot)
        page[:] = bytes(len(page))
        return self._free.pop(), InstanceStats.from_buffer(page), page

    def free(self, slot: int) -> None:
        """The slot may be used again; its record must not be."""
        self._free.append(slot)

    def close(self) -> None:
        """Nothing more is taken; records that are in use stay what they are."""
        os.close(self.fd)


def map_page(fd: int, slot: int) -> mmap.mmap:
    """The page of one slot."""
    return mmap.mmap(fd, mmap.PAGESIZE, offset=slot * mmap.PAGESIZE)
