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
    exchange = CallBuffers()
    try:
        yield exchange
    finally:
        exchange.renew()


def mapped(exchange: CallBuffers) -> tuple[Mapping, Mapping]:
    """Both segments, as an instance sees them."""
    requests, replies = exchange.introduce(0)
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
    exchange = CallBuffers()
    calls = [Call("f", payload(i, length), reply) for i, (length, reply) in enumerate(sizes)]
    letters = exchange.lay_out(calls, None)
    assert len(letters) == len(calls)
    for call, letter, (length, _) in zip(calls, letters, sizes, strict=True):
        assert letter.header == Header(INLINE, length, 0, 0, 0, 0)
        assert letter.inline == call.payload
        assert not letter.uses_segments
    assert exchange.shared == 0
    assert exchange.introduce(0) == ()


@settings(max_examples=50)
@given(st.lists(st.tuples(EITHER, EITHER), max_size=6), st.none() | EITHER)
def test_everything_is_where_the_letters_say(sizes: list[tuple[int, int]], shared_length: int | None) -> None:
    shared = None if shared_length is None else os.urandom(shared_length)
    calls = [Call("f", payload(i, length), reply) for i, (length, reply) in enumerate(sizes)]
    with exchanging() as exchange:
        letters = exchange.lay_out(calls, shared)
        large = shared is not None or any(max(size) > MAX_INLINE for size in sizes)
        assert [letter.uses_segments for letter in letters] == [large] * len(calls)
        if not large:
            return
        requests, replies = mapped(exchange)
        written, areas = [], []
        for call, letter, (length, reply) in zip(calls, letters, sizes, strict=True):
            header, whole = letter.header, b"".join(call.payload)
            assert header.payload_length == length
            assert (header.payload_at == INLINE) == (length <= MAX_INLINE)
            if header.payload_at == INLINE:
                assert b"".join(letter.inline) == whole
            else:
                assert not letter.inline
                assert requests.slice(header.payload_at, length) == whole
                written.append((header.payload_at, length))
            assert header.shared_length == (shared_length or 0)
            assert requests.slice(header.shared_at, header.shared_length) == (shared or b"")
            assert header.reply_length == (reply if reply > MAX_INLINE else 0)
            assert len(replies.slice(header.reply_at, header.reply_length)) == header.reply_length
            areas.append((header.reply_at, header.reply_length))
        assert len({letter.header.shared_at for letter in letters}) <= 1
        if letters:
            written.append((letters[0].header.shared_at, shared_length or 0))
        assert disjoint(written)
        assert disjoint(areas)


def test_a_buffer_is_shared_once_whatever_the_number_of_calls() -> None:
    shared = os.urandom(100_000)
    calls = [Call("f", payload(i, 50 if i else 40_000)) for i in range(5)]
    with exchanging() as exchange:
        exchange.lay_out(calls, shared)
        assert exchange.shared == padded(100_000) + padded(40_000)
        exchange.lay_out(calls[1:], shared)
        assert exchange.shared == 2 * padded(100_000) + padded(40_000)


def test_segments_are_kept_until_they_are_too_small() -> None:
    with exchanging() as exchange:
        first = exchange.lay_out([Call("f", [b"a" * 40_000])], None)
        generation, fds = exchange.generation, exchange.introduce(0)
        assert len(set(fds)) == 2
        assert exchange.introduce(generation) == ()
        again = exchange.lay_out([Call("f", [b"b" * 40_000])], None)
        assert (exchange.generation, exchange.introduce(0)) == (generation, fds)
        assert again[0].header == first[0].header  # the batch before is gone
        assert mapped(exchange)[0].slice(0, 40_000) == b"b" * 40_000
        exchange.lay_out([Call("f", [b""], reply_bytes=(1 << 20) + 1)], None)
        assert exchange.generation != generation
        requests, replies = mapped(exchange)
        assert len(replies.view) > 1 << 20
        assert requests.slice(0, 3) == b"\0\0\0"  # nothing of earlier batches


def test_after_renewal_others_no_longer_see_what_is_written() -> None:
    with exchanging() as exchange:
        exchange.lay_out([Call("f", [b"a" * 40_000])], None)
        generation = exchange.generation
        late = mapped(exchange)[0]
        exchange.renew()
        assert exchange.generation > generation
        assert exchange.introduce(generation) == ()  # there are none yet
        exchange.lay_out([Call("f", [b"b" * 40_000])], None)
        assert exchange.generation > generation
        assert len(exchange.introduce(generation)) == 2
        assert mapped(exchange)[0].slice(0, 1) == b"b"
        assert late.slice(0, 40_000) == b"a" * 40_000


def test_renewing_closes_the_old_descriptors() -> None:
    exchange = CallBuffers()
    exchange.lay_out([], b"shared")
    fds = exchange.introduce(0)
    exchange.renew()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    exchange.renew()  # twice is fine


def test_stored_replies_are_read_from_their_places() -> None:
    with exchanging() as exchange:
        letters = exchange.lay_out([Call("f", [b""], 40_000), Call("f", [b""], 50_000)], None)
        replies = mapped(exchange)[1]
        for letter, text in zip(letters, (b"first", b"second"), strict=True):
            replies.slice(letter.header.reply_at, len(text))[:] = text
        assert exchange.stored(letters[0], 5) == b"first"
        assert exchange.stored(letters[1], 6) == b"second"
        assert len(exchange.stored(letters[1], 50_000)) == 50_000


@given(st.integers(40_001, 2**64 - 1))
def test_a_stored_reply_longer_than_its_room_is_refused(length: int) -> None:
    with exchanging() as exchange:
        (letter,) = exchange.lay_out([Call("f", [b""], 40_000)], None)
        with pytest.raises(PayloadError, match=f"a reply of {length} bytes in a room of 40000"):
            exchange.stored(letter, length)


def test_a_stored_reply_to_a_small_call_is_refused() -> None:
    exchange = CallBuffers()
    (letter,) = exchange.lay_out([Call("f", [b"small"])], None)
    with pytest.raises(PayloadError, match="in a room of 0"):
        exchange.stored(letter, 1)


def test_a_batch_too_large_for_a_segment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 100_000)
    with exchanging() as exchange:
        for calls in ([Call("f", [bytes(50_000)])] * 3, [Call("f", [b""], 50_000)] * 3):
            with pytest.raises(PayloadError, match="100000 are the limit"):
                exchange.lay_out(calls, None)
        assert len(exchange.lay_out([Call("f", [bytes(50_000)])], None)) == 1
