"""Calls as the loop in C takes them: whole ones, pieces, and what is none."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.platforms.local.instance import connection, serving
from faasmoe.platforms.local.protocol import frame
from faasmoe.platforms.local.protocol.frame import HEADER, INLINE, MAX_INLINE, Header, Status
from faasmoe.platforms.local.protocol.wire import Lost
from tests.instruction_sets import on_each
from tests.unit.platforms.local.instance.callers import served
from tests.unit.platforms.local.protocol.frames import EMPTY, fresh

instruction_set = on_each(serving, connection)


def call_after(data: bytes) -> tuple[Header, bytes]:
    """The call that is received when the other side sends `data` and stops sending."""
    with served() as ends:
        ends.caller.sendall(data)
        ends.caller.shutdown(socket.SHUT_WR)
        payload, _ = ends.call()
        return Header(*ends.header()), payload


def whole(payload: bytes) -> bytes:
    return frame.pack_call(EMPTY._replace(payload_length=len(payload))) + payload


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_a_call_that_the_client_sends_is_received(parts: list[bytes]) -> None:
    header = EMPTY._replace(payload_length=sum(map(len, parts)))
    with served() as ends:
        sent = frame.send_call(ends.caller, frame.pack_call(header), parts)
        assert sent == HEADER + header.payload_length
        assert ends.call() == (b"".join(parts), None)
        assert ends.header() == header


@given(st.sampled_from([Status.OK, Status.FAILED, Status.UNLOADABLE]), st.binary(max_size=900))
def test_a_reply_is_received_as_the_client_receives_it(status: Status, text: bytes) -> None:
    with served() as ends:
        ends.server.served_here()
        ends.caller.sendall(whole(b""))
        assert ends.server.next_call()
        ends.server.call()
        ends.server.finish(*ends.server.explained(status, text))
        buffer = fresh()
        answer, end = frame.receive_reply(ends.caller, buffer)
        assert (answer.status, answer.crowded, answer.length) == (status, 0, len(text))
        assert answer.thread == threading.get_native_id()
        assert answer.busy == ends.record.busy > 0
        assert buffer[HEADER:end] == text


def test_a_failure_is_told_as_far_as_a_frame_has_room() -> None:
    with served() as ends:
        ends.caller.sendall(whole(b""))
        assert ends.server.next_call()
        ends.server.finish(*ends.server.explained(Status.FAILED, bytes(MAX_INLINE + 9)))
        answer, end = frame.receive_reply(ends.caller, fresh())
        assert (answer.status, answer.length, end) == (Status.FAILED, MAX_INLINE, frame.BUFFER)


def test_the_largest_frames_go_through_an_empty_socket() -> None:
    payload = os.urandom(MAX_INLINE)
    with served() as ends:
        ends.caller.setblocking(False)
        frame.send_call(ends.caller, whole(payload)[:HEADER], [payload])
        assert ends.server.next_call()
        assert ends.server.call()[0] == payload
        ends.server.finish(*ends.server.stored(payload[::-1]))
        buffer = fresh()
        assert frame.receive_reply(ends.caller, buffer)[-1] == frame.BUFFER
        assert buffer[HEADER:] == payload[::-1]


def test_one_connection_carries_calls_one_after_the_other() -> None:
    with served() as ends:
        for payload in (b"first and longer", b"", b"third"):
            ends.caller.sendall(whole(payload))
            assert ends.call()[0] == payload


@settings(max_examples=15)
@given(st.binary(max_size=300), st.lists(st.integers(1, 400), max_size=3))
def test_a_call_may_arrive_in_pieces(payload: bytes, cuts: list[int]) -> None:
    data = whole(payload)
    edges = [0, *sorted(cut for cut in set(cuts) if cut < len(data)), len(data)]
    with served() as ends:

        def send() -> None:
            for first, last in pairwise(edges):
                ends.caller.sendall(data[first:last])
                time.sleep(1e-3)

        thread = threading.Thread(target=send)
        thread.start()
        assert ends.server.next_call()
        assert ends.server.call()[0] == payload
        thread.join()


@given(st.binary(min_size=1, max_size=300))
def test_noise_is_no_call(noise: bytes) -> None:
    with pytest.raises(Lost):
        call_after(noise)


def test_the_end_of_a_connection_is_no_call() -> None:
    with served() as ends:
        ends.caller.close()
        assert not ends.server.next_call()


@given(st.binary(max_size=60), st.binary(max_size=100))
def test_noise_behind_the_right_beginning_is_understood_or_lost(fields: bytes, rest: bytes) -> None:
    data = b"FMcq" + frame.VERSION.to_bytes(2, "little") + fields + rest
    try:
        _, payload = call_after(data)
    except Lost:
        return
    assert len(data) == HEADER + len(payload)


@given(st.binary(max_size=300), st.data())
def test_a_call_cut_short_is_lost(payload: bytes, data: st.DataObject) -> None:
    call = whole(payload)
    with pytest.raises(Lost, match="closed"):
        call_after(call[: data.draw(st.integers(1, len(call) - 1))])


@given(st.binary(max_size=300), st.binary(min_size=1, max_size=50))
def test_bytes_behind_a_call_are_refused(payload: bytes, more: bytes) -> None:
    with pytest.raises(Lost, match="after the end"):
        call_after(whole(payload) + more)


@given(st.integers(MAX_INLINE + 1, 2**64 - 1))
def test_announced_lengths_beyond_the_limit_are_refused(length: int) -> None:
    with pytest.raises(Lost, match="more bytes were announced than 32768"):
        call_after(frame.pack_call(EMPTY._replace(payload_length=length)))


@pytest.mark.parametrize("head", [
    struct.pack("<4sHHQQQQQQ8x", b"FMca", 1, 0, *EMPTY),
    struct.pack("<4sHHQQQQQQ8x", b"FMcq", 2, 0, *EMPTY),
    struct.pack("<4sHHQQQQQQ8x", b"FMcq", 1, 2, *EMPTY),
])  # fmt: skip
def test_another_kind_of_call_is_refused(head: bytes) -> None:
    with pytest.raises(Lost, match="not a call of this version"):
        call_after(head)


@given(st.integers(0, INLINE - 1), st.integers(0, 2**64 - 1))
def test_places_without_a_segment_are_refused(at: int, length: int) -> None:
    for header in (Header(at, length, 0, 0, 0, 0), EMPTY._replace(shared_at=at, shared_length=length or 1),
                   EMPTY._replace(reply_at=at, reply_length=length or 1)):  # fmt: skip
        with pytest.raises(Lost, match="shared memory that is not there"):
            call_after(frame.pack_call(header))


def test_a_caller_that_has_gone_is_lost() -> None:
    with served() as ends:
        ends.caller.sendall(whole(b""))
        assert ends.server.next_call()
        ends.server.call()
        ends.caller.close()
        with pytest.raises(Lost, match="broke"):
            ends.server.finish(*ends.server.stored(b""))
        assert (ends.record.in_flight, ends.record.invocations) == (0, 1)
