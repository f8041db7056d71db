"""Measures how many bytes of files are in the page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from faasmoe.errors import MeasurementError

Range = tuple[str, int, int]  # file, offset, length in bytes

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_FAILED = ctypes.c_void_p(-1).value
_LOWEST_BIT = bytes(value & 1 for value in range(256))  # the others mean nothing (mincore(2))


def resident_bytes(ranges: Iterable[Range]) -> int:
    """Bytes of the ranges that are in the page cache, in whole pages. Ranges must not overlap.

    The kernel tells that only those who may write a file. Raises `MeasurementError` for anybody else.
    """
    return sum(_resident(*place) for place in joined(ranges))


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The ranges in order, neighbouring ones as one."""
    result: list[Range] = []
    for file, offset, length in sorted(ranges):
        if result and result[-1][0] == file and result[-1][1] + result[-1][2] == offset:
            result[-1] = file, result[-1][1], result[-1][2] + length
        else:
            result.append((file, offset, length))
    return result


def _resident(file: str, offset: int, length: int) -> int:
    if not os.access(file, os.W_OK):
        raise MeasurementError(
            f"{file}: is not writable, so the kernel does not tell which of its pages are in the page cache"
        )
    start = offset // mmap.PAGESIZE * mmap.PAGESIZE
    size = min(offset + length, Path(file).stat().st_size) - start
    if size <= 0:
        return 0
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, start)
    finally:
        os.close(fd)
    if address == _FAILED:
        raise MeasurementError(f"{file}: cannot be mapped: {os.strerror(ctypes.get_errno())}")
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    try:
        if _LIBC.mincore(address, size, pages):
            raise MeasurementError(f"{file}: mincore: {os.strerror(ctypes.get_errno())}")
    finally:
        _LIBC.munmap(address, size)
    return min(length, pages.raw.translate(_LOWEST_BIT).count(1) * mmap.PAGESIZE)
