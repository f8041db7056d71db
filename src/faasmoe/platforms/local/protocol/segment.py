"""Shared memory between an orchestrator and the instances it calls.

An orchestrator has two segments: one it writes requests into, which instances map read-only, and one instances write
replies into. They are memory without a name, so nothing is left behind, and sealed against shrinking, so that no
side can make the other fault. Each is replaced by a larger one when it is too small, and by a fresh one when somebody
who was given up might still write into it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

from faasmoe.platforms.buffer import Buffer

_F_SEAL_FUTURE_WRITE = 0x0010  # linux/fcntl.h; only our own mapping may write from then on
_ALIGN = 64  # bytes: a cache line, and any dtype's alignment
_SMALLEST = 1 << 20
LARGEST = 1 << 32


class Segment:
    """Written or read by its maker. `fd` is for those it is shared with: read-only unless `writable`."""

    def __init__(self, nbytes: int, writable: bool) -> None:
        size = _SMALLEST
        while size < nbytes:
            size *= 2
        own = os.memfd_create("faasmoe-segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(own, size)
            self._map = mmap.mmap(own, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            if not writable:  # else it could be opened again, for writing, through /proc
                seals |= _F_SEAL_FUTURE_WRITE
            fcntl.fcntl(own, fcntl.F_ADD_SEALS, seals)
            flags = os.O_RDWR if writable else os.O_RDONLY
            self.fd = os.open(f"/proc/self/fd/{own}", flags | os.O_CLOEXEC)
        finally:
            os.close(own)
        self.size = size
        self.view = memoryview(self._map)
        self._used = 0

    def clear(self) -> None:
        """What was placed is no longer needed."""
        self._used = 0

    def place(self, nbytes: int) -> int:
        """Offset of room for `nbytes` more. The caller has made sure that they fit."""
        at = self._used
        self._used += padded(nbytes)
        return at

    def write(self, parts: Sequence[Buffer]) -> tuple[int, int]:
        """Copy `parts` behind what is there; returns where they lie and how long they are."""
        length = sum(map(_nbytes, parts))
        at = end = self.place(length)
        for part in parts:
            flat = memoryview(part).cast("B")
            self.view[end : end + len(flat)] = flat
            end += len(flat)
        return at, length

    def close(self) -> None:
        """Others keep their mapping; views that are still in use keep ours until they go."""
        os.close(self.fd)
        self.view.release()


class Mapping:
    """A segment of somebody else."""

    def __init__(self, fd: int, writable: bool) -> None:
        """Closes `fd`. Raises `ValueError` if it is not what a `Segment` shares."""
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            size = os.fstat(fd).st_size
            if not seals & fcntl.F_SEAL_SHRINK or not 0 < size <= LARGEST:
                raise ValueError(f"a segment of {size} bytes with seals {seals:#x}")
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            self._map = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=access)
        except OSError as error:
            raise ValueError(f"not a segment: {error.strerror}") from error
        finally:
            os.close(fd)
        self.view = memoryview(self._map)

    def slice(self, at: int, length: int) -> memoryview:
        """Raises `ValueError` if it is not all inside."""
        if at % _ALIGN or at + length > len(self.view):
            raise ValueError(f"{length} bytes at {at} of a segment of {len(self.view)}")
        return self.view[at : at + length]


def padded(nbytes: int) -> int:
    """Bytes that `nbytes` take in a segment."""
    return -(-nbytes // _ALIGN) * _ALIGN


def _nbytes(part: Buffer) -> int:
    return memoryview(part).nbytes
