"""Descriptors beside a call's frame."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import HEADER
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.platforms.local.protocol.frames import (
    EMPTY,
    call_after,
    fresh,
    pair,
    received,
)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Ends of a pipe that does not wait; the writing end is closed by the caller."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield reading, writing
    finally:
        os.close(reading)


def test_two_descriptors_arrive_and_can_be_used() -> None:
    with pair() as (ours, theirs), pipe() as (reading, writing):
        frame.send_call(theirs, frame.pack_call(EMPTY, segments=True), (), [writing, reading])
        os.close(writing)
        _, inline, fds = received(ours)
        assert len(inline) == 0
        assert len(fds) == 2
        os.write(fds[0], b"through both")
        assert os.read(fds[1], 100) == b"through both"
        frame.close_all(fds)
        assert os.read(reading, 1) == b""  # nobody has the writing end any more


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("segments", [True, False])
def test_another_number_of_descriptors_is_refused_and_they_are_closed(count: int, segments: bool) -> None:
    with pair() as (ours, theirs), pipe() as (reading, writing):
        frame.send_call(theirs, frame.pack_call(EMPTY, segments), (), [writing] * count)
        os.close(writing)
        with pytest.raises(Lost, match="descriptors"):
            frame.receive_call(ours, fresh())
        assert os.read(reading, 1) == b""


def test_two_descriptors_that_nobody_announced_are_closed() -> None:
    with pair() as (ours, theirs), pipe() as (reading, writing):
        frame.send_call(theirs, frame.pack_call(EMPTY), (), [writing] * 2)
        os.close(writing)
        with pytest.raises(Lost, match="2 descriptors came with flags 0"):
            frame.receive_call(ours, fresh())
        assert os.read(reading, 1) == b""


def test_announced_descriptors_that_do_not_come_are_missed() -> None:
    with pytest.raises(Lost, match="0 descriptors came with flags 1"):
        call_after(frame.pack_call(EMPTY, segments=True))


@given(st.integers(1, HEADER + 9))
def test_descriptors_of_a_call_cut_short_are_closed(cut: int) -> None:
    whole = frame.pack_call(EMPTY._replace(payload_length=10), segments=True) + bytes(10)
    with pair() as (ours, theirs), pipe() as (reading, writing):
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing] * 2))
        theirs.sendmsg([whole[:cut]], [rights])
        os.close(writing)
        theirs.close()
        with pytest.raises(Lost):
            frame.receive_call(ours, fresh())
        assert os.read(reading, 1) == b""


def test_only_descriptors_are_taken_from_what_comes_beside_a_frame() -> None:
    rights = struct.pack("3i", 5, 6, 7)
    ancillary = [
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, rights[:8]),
        (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, rights),
        (socket.IPPROTO_IP, socket.SCM_RIGHTS, rights),
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, rights[8:] + b"\0\0"),
    ]
    assert frame.descriptors(ancillary) == [5, 6, 7]
    assert frame.descriptors([]) == []
