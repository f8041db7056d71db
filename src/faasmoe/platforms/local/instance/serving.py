"""The serving loop of an instance in C (`experts/kernels/c/serving`): its memory, and how Python enters it.

Frames, slots, the record and times are C's, whoever answers a call: a compiled function, or a handler in Python.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

from faasmoe.experts.kernels.library import ADDRESS, BOOL, INT, LIBRARY
from faasmoe.platforms.latency import BOUNDS_NS, BUCKETS
from faasmoe.platforms.local.protocol.frame import BUFFER
from faasmoe.platforms.local.protocol.stats_page import InstanceStats

_BOUNDS = (ctypes.c_double * BUCKETS)(*BOUNDS_NS)
_UINT, _INT, _ULONG = ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64

next_call = LIBRARY.function("next_call", ADDRESS, ADDRESS, result=_INT)
finish_call = LIBRARY.function("finish_call", ADDRESS, ADDRESS, _INT, INT, result=BOOL)
drain_calls = LIBRARY.function("drain_calls", ADDRESS, INT)


class CallOutcome(IntEnum):
    """Why the loop returns: `Outcome` of `c/serving/frame.h`."""

    CLOSED = 0
    CALLED = 1
    SEGMENTS = 2
    SYSTEM = 3
    CUT_SHORT = 4
    NOT_A_CALL = 5
    TOO_LONG = 6
    DESCRIPTORS = 7
    BEHIND = 8
    OUTSIDE = 9


class _Area(ctypes.Structure):
    _fields_ = (("memory", ADDRESS), ("size", _ULONG))


class _Call(ctypes.Structure):
    _fields_ = (
        ("payload", ADDRESS),
        ("length", INT),
        ("shared", ADDRESS),
        ("shared_length", INT),
        ("waited", INT),
        ("room", _Area),
    )


class CallerMemory(ctypes.Structure):
    """`Caller` of `c/serving/frame.h`. It must lie at a multiple of 64."""

    _fields_ = (
        ("frame", ctypes.c_char * BUFFER),
        ("reply", ctypes.c_char * BUFFER),
        ("socket", _INT),
        ("thread", _UINT),
        ("requests", _Area),
        ("replies", _Area),
        ("descriptors", _INT * 2),
        ("received", _INT),
        ("call", _Call),
        ("arrived", INT),
        ("share", INT),
    )


class InstanceMemory(ctypes.Structure):
    """`Instance` of `c/serving/calls.h`."""

    _fields_ = (
        ("record", ADDRESS),
        ("bounds", ADDRESS),
        ("buckets", INT),
        ("function", ADDRESS),
        ("context", ADDRESS),
        ("concurrency", INT),
        ("lifeline", _INT),
        ("lock", _UINT),
        ("freed", _UINT),
        ("waiting", _UINT),
        ("draining", _UINT),
        ("in_flight", INT),
        ("running", INT),
        ("each", INT),
        ("changed", INT),
    )

    @classmethod
    def of(cls, record: InstanceStats, concurrency: int, lifeline: int) -> InstanceMemory:
        """Of an instance that has had no call. `record` must stay while it is used."""
        return cls(
            record=ctypes.addressof(record),
            bounds=ctypes.addressof(_BOUNDS),
            buckets=BUCKETS,
            concurrency=concurrency,
            lifeline=lifeline,
        )


class _View(ctypes.Structure):
    """`Py_buffer` (Python's C API, "Buffer structure")."""

    _fields_ = (
        ("buf", ADDRESS),
        ("obj", ADDRESS),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        *((name, ADDRESS) for name in ("shape", "strides", "suboffsets", "internal")),
    )


def address(memory: memoryview) -> int:
    """Where it lies. ctypes itself tells that of memory which can be written to alone."""
    view = _View()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(memory), ctypes.byref(view), 0)
    found = int(view.buf)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    return found
