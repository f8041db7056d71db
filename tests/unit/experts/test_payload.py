from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import PayloadError
from faasmoe.experts.dtypes import narrowed
from faasmoe.experts.payload import (
    Reply,
    Request,
    Timings,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    reply_bytes,
    reply_sums,
    seal_reply,
)


def joined(parts: list) -> bytearray:
    return bytearray(b"".join(parts))


def drawn_rows(random: np.random.Generator, tokens: int, width: int, bfloat16: bool) -> np.ndarray:
    rows = random.standard_normal((tokens, width), np.float32)
    return narrowed(rows) if bfloat16 else rows


@st.composite
def requests(draw: st.DrawFn) -> Request:
    tokens, width, slots = draw(st.integers(1, 5)), draw(st.integers(1, 7)), draw(st.integers(0, 9))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    return Request(
        layer=draw(st.integers(0, 1000)),
        rows=drawn_rows(random, tokens, width, draw(st.booleans())),
        row=random.integers(0, tokens, slots, np.int32),
        expert=random.integers(0, 60, slots, np.int32),
        weight=random.random(slots, np.float32),
    )


@given(requests())
def test_request_round_trip(request: Request) -> None:
    again = decode_request(joined(encode_request(request)))
    assert again.layer == request.layer
    for name in ("rows", "row", "expert", "weight"):
        assert np.array_equal(getattr(again, name), getattr(request, name))
    assert (again.rows.dtype, again.dtype) == (request.rows.dtype, request.dtype)


@given(requests(), st.data())
def test_a_request_of_another_length_is_refused(request: Request, data: st.DataObject) -> None:
    whole = joined(encode_request(request))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PayloadError):
        decode_request(whole[:cut])
    with pytest.raises(PayloadError, match="announces"):
        decode_request(whole + b"x")


@given(st.binary(max_size=200))
def test_noise_is_no_request(noise: bytes) -> None:
    with pytest.raises(PayloadError):
        decode_request(bytearray(noise))


@given(requests(), st.integers(0, 23), st.integers(0, 255))
def test_a_damaged_header_never_reaches_memory(request: Request, at: int, value: int) -> None:
    damaged = joined(encode_request(request))
    damaged[at] = value
    try:
        decoded = decode_request(damaged)
    except PayloadError:
        return
    assert decoded.rows.nbytes + 12 * decoded.row.size <= len(damaged)


def test_a_row_out_of_range_is_refused() -> None:
    request = Request(
        layer=0,
        rows=np.ones((2, 3), np.float32),
        row=np.array([2], np.int32),
        expert=np.array([0], np.int32),
        weight=np.ones(1, np.float32),
    )
    with pytest.raises(PayloadError, match=r"outside 0\.\.1"):
        decode_request(joined(encode_request(request)))


def test_another_version_is_refused() -> None:
    data = joined(encode_reply(Reply(np.ones((1, 2), np.float32))))
    data[4] = 9
    with pytest.raises(PayloadError, match="version 9"):
        decode_reply(data)


@given(st.integers(0, 4), st.integers(0, 5), st.booleans())
def test_reply_round_trip(tokens: int, width: int, cold: bool) -> None:
    sums = np.arange(tokens * width, dtype=np.float32).reshape(tokens, width)
    again = decode_reply(joined(encode_reply(Reply(sums, Timings(1, 2, 3), cold))))
    assert np.array_equal(again.sums, sums)
    assert (again.timings, again.cold, again.error) == (Timings(1, 2, 3), cold, None)


@given(st.text(min_size=1, max_size=50))
def test_error_reply_round_trip(text: str) -> None:
    again = decode_reply(joined(encode_reply(Reply(None, error=text))))
    assert again.sums is None
    assert again.error == text


@given(st.binary(max_size=100))
def test_noise_is_no_reply(noise: bytes) -> None:
    with pytest.raises(PayloadError):
        decode_reply(bytearray(noise))


# rows in a buffer that all functions share


@st.composite
def shared_requests(draw: st.DrawFn) -> Request:
    total, width, slots = draw(st.integers(1, 9)), draw(st.integers(1, 7)), draw(st.integers(0, 9))
    picked = draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=12))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    return Request(
        layer=draw(st.integers(0, 1000)),
        rows=drawn_rows(random, total, width, draw(st.booleans())),
        row=random.integers(0, len(picked), slots, np.int32),
        expert=random.integers(0, 60, slots, np.int32),
        weight=random.random(slots, np.float32),
        picked=np.array(picked, np.int32),
    )


def buffer_of(request: Request) -> memoryview:
    """What is shared, as an instance sees it."""
    return memoryview(bytearray(request.rows.tobytes()))


def one_shared(picked: list[int]) -> Request:
    return Request(
        layer=0,
        rows=np.ones((3, 2), np.float32),
        row=np.zeros(1, np.int32),
        expert=np.zeros(1, np.int32),
        weight=np.ones(1, np.float32),
        picked=np.array(picked, np.int32),
    )


@given(shared_requests())
def test_shared_request_round_trip(request: Request) -> None:
    data = joined(encode_request(request))
    assert len(data) == 24 + 4 * request.tokens + 12 * request.row.size  # no row's values
    again = decode_request(data, buffer_of(request))
    assert (again.layer, again.tokens) == (request.layer, request.tokens)
    for name in ("rows", "row", "expert", "weight", "picked"):
        assert np.array_equal(getattr(again, name), getattr(request, name))
    assert (again.rows.dtype, again.dtype) == (request.rows.dtype, request.dtype)


@given(requests(), st.binary(max_size=50))
def test_a_request_with_its_own_rows_ignores_what_is_shared(request: Request, other: bytes) -> None:
    again = decode_request(joined(encode_request(request)), memoryview(bytearray(other)))
    assert again.picked is None
    assert np.array_equal(again.rows, request.rows)


def test_shared_rows_are_not_copied() -> None:
    request = one_shared([2])
    shared = buffer_of(request)
    again = decode_request(joined(encode_request(request)), shared)
    shared[:] = bytes(len(shared))
    assert not again.rows.any()


@given(shared_requests(), st.data())
def test_an_index_outside_the_shared_buffer_is_refused(request: Request, data: st.DataObject) -> None:
    total = len(request.rows)
    outside = st.integers(total, 2**31 - 1) | st.integers(-(2**31), -1)
    at = data.draw(st.integers(0, request.tokens - 1))
    request.picked[at] = data.draw(outside)
    with pytest.raises(PayloadError, match=rf"the request names a row outside 0\.\.{total - 1}"):
        decode_request(joined(encode_request(request)), buffer_of(request))


def test_a_slot_counts_picked_rows_not_shared_ones() -> None:
    request = one_shared([0, 2])
    request.row[0] = 2  # there are three rows in the buffer, but two in the request
    with pytest.raises(PayloadError, match=r"a slot names a row outside 0\.\.1"):
        decode_request(joined(encode_request(request)), buffer_of(request))


def test_a_shared_buffer_that_does_not_come_is_missed() -> None:
    with pytest.raises(PayloadError, match="no shared buffer came"):
        decode_request(joined(encode_request(one_shared([0]))))


@given(shared_requests(), st.integers(1, 200))
def test_a_shared_buffer_of_another_width_is_refused(request: Request, nbytes: int) -> None:
    row_bytes = request.rows.shape[1] * request.rows.itemsize
    nbytes += nbytes % row_bytes == 0
    with pytest.raises(PayloadError, match=f"shared buffer of {nbytes} bytes is no matrix"):
        decode_request(joined(encode_request(request)), memoryview(bytearray(nbytes)))


def test_a_shared_buffer_with_too_few_rows_is_refused() -> None:
    request = one_shared([1])
    data = joined(encode_request(request))
    assert decode_request(data, memoryview(bytearray(16))).tokens == 1
    for nbytes in (8, 0):
        with pytest.raises(PayloadError, match="the request names a row outside"):
            decode_request(data, memoryview(bytearray(nbytes)))


def test_shared_rows_without_columns_are_refused() -> None:
    data = struct.pack("<4sHBBIIII", b"FMoQ", 2, 0, 1, 0, 0, 0, 0)
    with pytest.raises(PayloadError, match="no matrix of 0 columns"):
        decode_request(bytearray(data), memoryview(bytearray(8)))


@given(shared_requests(), st.data())
def test_a_shared_request_of_another_length_is_refused(request: Request, data: st.DataObject) -> None:
    whole, shared = joined(encode_request(request)), buffer_of(request)
    with pytest.raises(PayloadError):
        decode_request(whole[: data.draw(st.integers(0, len(whole) - 1))], shared)
    with pytest.raises(PayloadError, match="announces"):
        decode_request(whole + data.draw(st.binary(min_size=1, max_size=20)), shared)


@given(requests() | shared_requests(), st.data())
def test_flipped_bits_of_a_request_stay_within_its_memory(request: Request, data: st.DataObject) -> None:
    damaged, shared = joined(encode_request(request)), buffer_of(request)
    for bit in data.draw(st.lists(st.integers(0, 8 * len(damaged) - 1), min_size=1, max_size=4)):
        damaged[bit // 8] ^= 1 << bit % 8
    try:
        decoded = decode_request(damaged, shared)
    except PayloadError:
        return
    rows = decoded.rows if decoded.picked is None else decoded.rows[decoded.picked]
    assert len(rows) == decoded.tokens
    assert len(rows[decoded.row]) == decoded.row.size == decoded.expert.size == decoded.weight.size
    assert decoded.rows.nbytes <= (len(damaged) if decoded.picked is None else len(shared))


@given(st.binary(max_size=60), st.sampled_from([0, 1]), st.sampled_from([0, 1]), st.binary(max_size=40))
def test_noise_behind_the_right_beginning_is_understood_or_refused(
    noise: bytes, dtype: int, place: int, shared: bytes
) -> None:
    data = bytearray(struct.pack("<4sHBB", b"FMoQ", 2, dtype, place) + noise)
    try:
        decoded = decode_request(data, memoryview(bytearray(shared)))
    except PayloadError:
        return
    assert (decoded.picked is not None) == bool(place)
    assert decoded.row.size * 12 <= len(data) - 24


@given(st.integers(0, 4), st.integers(0, 5), st.data())
def test_flipped_bits_of_a_reply_stay_within_its_memory(tokens: int, width: int, data: st.DataObject) -> None:
    reply = Reply(np.ones((tokens, width), np.float32), Timings(1, 2, 3))
    failed = Reply(None, error="Kind: what happened")
    damaged = joined(encode_reply(data.draw(st.sampled_from([reply, failed]))))
    for bit in data.draw(st.lists(st.integers(0, 8 * len(damaged) - 1), min_size=1, max_size=4)):
        damaged[bit // 8] ^= 1 << bit % 8
    try:
        decoded = decode_reply(damaged)
    except PayloadError:
        return
    assert (decoded.sums is None) == (decoded.error is not None)
    if decoded.sums is not None:
        assert decoded.sums.nbytes == len(damaged) - reply_bytes(0, 0)


@given(st.integers(0, 4), st.integers(0, 5), st.data())
def test_a_reply_of_another_length_is_refused(tokens: int, width: int, data: st.DataObject) -> None:
    for reply in (Reply(np.ones((tokens, width), np.float32)), Reply(None, error="Kind: what happened")):
        whole = joined(encode_reply(reply))
        with pytest.raises(PayloadError):
            decode_reply(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(PayloadError, match="announces"):
            decode_reply(whole + data.draw(st.binary(min_size=1, max_size=20)))


@given(st.integers(0, 4), st.integers(0, 5), st.booleans())
def test_a_reply_made_in_place_is_that_of_its_parts(tokens: int, width: int, cold: bool) -> None:
    buffer = bytearray(b"x" * reply_bytes(tokens, width))
    sums = reply_sums(buffer, tokens, width)
    assert np.array_equal(sums, np.zeros((tokens, width)))
    sums += np.arange(tokens * width).reshape(tokens, width)
    seal_reply(buffer, tokens, width, Timings(4, 5, 6), cold)
    assert buffer == joined(encode_reply(Reply(sums, Timings(4, 5, 6), cold)))
