from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.errors import PayloadError
from faasmoe.platforms.base import Call
from faasmoe.platforms.local.client import call_buffers as module
from faasmoe.platforms.local.client.call_buffers import CallBuffers
from faasmoe.platforms.local.protocol.frame import INLINE, MAX_INLINE, Header
from faasmoe.platforms.local.protocol.segment import Mapping, padded

SMALL = st.integers(0, 300)
EITHER = SMALL | st.integers(MAX_INLINE - 2, MAX_INLINE + 300) | st.just(3 * MAX_INLINE)


@contextmanager
def exchanging() -> Iterator[CallBuffers]:
    buffers = CallBuffers()
    try:
        yield buffers
    finally:
        buffers.renew()


def mapped(buffers: CallBuffers) -> tuple[Mapping, Mapping]:
    """Both segments, as an instance sees them."""
    requests, replies = buffers.introduce(0)
    return Mapping(os.dup(requests), writable=False), Mapping(os.dup(replies), writable=True)


def payload(number: int, length: int) -> list[bytes]:
    """Two parts, different for each call."""
    text = bytes([1 + number % 255]) * length
    return [text[: length // 3], text[length // 3 :]]


def disjoint(places: list[tuple[int, int]]) -> bool:
    places = sorted(place for place in places if place[1])
    return all(at + length <= after for (at, length), (after, _) in pairwise(places))


@given(st.lists(st.tuples(SMALL, st.integers(0, MAX_INLINE)), max_size=5))
def test_small_calls_stay_in_frames(sizes: list[tuple[int, int]]) -> None:
    buffers = CallBuffers()
    calls = [Call("f", payload(i, length), reply) for i, (length, reply) in enumerate(sizes)]
    encoded_calls = buffers.lay_out(calls, None)
    assert len(encoded_calls) == len(calls)
    for call, encoded, (length, _) in zip(calls, encoded_calls, sizes, strict=True):
        assert encoded.header == Header(INLINE, length, 0, 0, 0, 0)
        assert encoded.inline == call.payload
        assert not encoded.uses_segments
    assert buffers.introduce(0) == ()


@settings(max_examples=50)
@given(st.lists(st.tuples(EITHER, EITHER), max_size=6), st.none() | EITHER)
def test_everything_is_where_the_letters_say(sizes: list[tuple[int, int]], shared_length: int | None) -> None:
    shared = None if shared_length is None else os.urandom(shared_length)
    calls = [Call("f", payload(i, length), reply) for i, (length, reply) in enumerate(sizes)]
    with exchanging() as buffers:
        encoded_calls = buffers.lay_out(calls, shared)
        large = shared is not None or any(max(size) > MAX_INLINE for size in sizes)
        assert [encoded.uses_segments for encoded in encoded_calls] == [large] * len(calls)
        if not large:
            return
        requests, replies = mapped(buffers)
        written, areas = [], []
        for call, encoded, (length, reply) in zip(calls, encoded_calls, sizes, strict=True):
            header, whole = encoded.header, b"".join(call.payload)
            assert header.payload_length == length
            assert (header.payload_at == INLINE) == (length <= MAX_INLINE)
            if header.payload_at == INLINE:
                assert b"".join(encoded.inline) == whole
            else:
                assert not encoded.inline
                assert requests.slice(header.payload_at, length) == whole
                written.append((header.payload_at, length))
            assert header.shared_length == (shared_length or 0)
            assert requests.slice(header.shared_at, header.shared_length) == (shared or b"")
            assert header.reply_length == (reply if reply > MAX_INLINE else 0)
            assert len(replies.slice(header.reply_at, header.reply_length)) == header.reply_length
            areas.append((header.reply_at, header.reply_length))
        assert len({encoded.header.shared_at for encoded in encoded_calls}) <= 1
        if encoded_calls:
            written.append((encoded_calls[0].header.shared_at, shared_length or 0))
        assert disjoint(written)
        assert disjoint(areas)


def test_a_buffer_is_shared_once_whatever_the_number_of_calls() -> None:
    shared = os.urandom(100_000)
    calls = [Call("f", payload(i, 50 if i else 40_000)) for i in range(5)]
    with exchanging() as buffers:
        for batch in (calls, calls[::-1], calls[1:]):
            headers = [encoded.header for encoded in buffers.lay_out(batch, shared)]
            assert {(header.shared_at, header.shared_length) for header in headers} == {(0, 100_000)}
            behind = [header.payload_at for header in headers if header.payload_at != INLINE]
            assert behind == [padded(100_000)] * (calls[0] in batch)
            assert mapped(buffers)[0].slice(0, 100_000) == shared


def test_segments_are_kept_until_they_are_too_small() -> None:
    with exchanging() as buffers:
        first = buffers.lay_out([Call("f", [b"a" * 40_000])], None)
        generation, fds = buffers.generation, buffers.introduce(0)
        assert len(set(fds)) == 2
        assert buffers.introduce(generation) == ()
        again = buffers.lay_out([Call("f", [b"b" * 40_000])], None)
        assert (buffers.generation, buffers.introduce(0)) == (generation, fds)
        assert again[0].header == first[0].header  # the batch before is gone
        assert mapped(buffers)[0].slice(0, 40_000) == b"b" * 40_000
        buffers.lay_out([Call("f", [b""], reply_bytes=(1 << 20) + 1)], None)
        assert buffers.generation != generation
        requests, replies = mapped(buffers)
        assert len(replies.view) > 1 << 20
        assert requests.slice(0, 3) == b"\0\0\0"  # nothing of earlier batches


def test_after_renewal_others_no_longer_see_what_is_written() -> None:
    with exchanging() as buffers:
        buffers.lay_out([Call("f", [b"a" * 40_000])], None)
        generation = buffers.generation
        late = mapped(buffers)[0]
        buffers.renew()
        assert buffers.generation > generation
        assert buffers.introduce(generation) == ()  # there are none yet
        buffers.lay_out([Call("f", [b"b" * 40_000])], None)
        assert buffers.generation > generation
        assert len(buffers.introduce(generation)) == 2
        assert mapped(buffers)[0].slice(0, 1) == b"b"
        assert late.slice(0, 40_000) == b"a" * 40_000


def test_renewing_closes_the_old_descriptors() -> None:
    buffers = CallBuffers()
    buffers.lay_out([], b"shared")
    fds = buffers.introduce(0)
    buffers.renew()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    buffers.renew()  # twice is fine


def test_stored_replies_are_read_from_their_places() -> None:
    with exchanging() as buffers:
        encoded_calls = buffers.lay_out([Call("f", [b""], 40_000), Call("f", [b""], 50_000)], None)
        replies = mapped(buffers)[1]
        for encoded, text in zip(encoded_calls, (b"first", b"second"), strict=True):
            replies.slice(encoded.header.reply_at, len(text))[:] = text
        assert buffers.stored(encoded_calls[0], 5) == b"first"
        assert buffers.stored(encoded_calls[1], 6) == b"second"
        assert len(buffers.stored(encoded_calls[1], 50_000)) == 50_000


@given(st.integers(40_001, 2**64 - 1))
def test_a_stored_reply_longer_than_its_room_is_refused(length: int) -> None:
    with exchanging() as buffers:
        (encoded,) = buffers.lay_out([Call("f", [b""], 40_000)], None)
        with pytest.raises(PayloadError, match=f"a reply of {length} bytes in a room of 40000"):
            buffers.stored(encoded, length)


def test_a_stored_reply_to_a_small_call_is_refused() -> None:
    buffers = CallBuffers()
    (encoded,) = buffers.lay_out([Call("f", [b"small"])], None)
    with pytest.raises(PayloadError, match="in a room of 0"):
        buffers.stored(encoded, 1)


def test_a_batch_too_large_for_a_segment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 100_000)
    with exchanging() as buffers:
        for calls in ([Call("f", [bytes(50_000)])] * 3, [Call("f", [b""], 50_000)] * 3):
            with pytest.raises(PayloadError, match="100000 are the limit"):
                buffers.lay_out(calls, None)
        assert len(buffers.lay_out([Call("f", [bytes(50_000)])], None)) == 1
