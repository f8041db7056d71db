from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import PayloadError
from faasmoe.experts.payload import (
    Reply,
    Request,
    Timings,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)


def joined(parts: list) -> bytearray:
    return bytearray(b"".join(parts))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    tokens, width, slots = draw(st.integers(1, 5)), draw(st.integers(1, 7)), draw(st.integers(0, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    return Request(
        draw(st.integers(0, 1000)),
        torch.randn(tokens, width, generator=generator).to(dtype),
        torch.randint(0, tokens, (slots,), generator=generator, dtype=torch.int32),
        torch.randint(0, 60, (slots,), generator=generator, dtype=torch.int32),
        torch.rand(slots, generator=generator),
    )


@given(requests())
def test_request_round_trip(request: Request) -> None:
    again = decode_request(joined(encode_request(request)))
    assert again.layer == request.layer
    for name in ("rows", "row", "expert", "weight"):
        assert torch.equal(getattr(again, name), getattr(request, name))
    assert again.rows.dtype == request.rows.dtype


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
    assert decoded.rows.nbytes + 12 * decoded.row.numel() <= len(damaged)


def test_a_row_out_of_range_is_refused() -> None:
    request = Request(
        0,
        torch.ones(2, 3),
        torch.tensor([2], dtype=torch.int32),
        torch.tensor([0], dtype=torch.int32),
        torch.ones(1),
    )
    with pytest.raises(PayloadError, match=r"outside 0\.\.1"):
        decode_request(joined(encode_request(request)))


def test_another_version_is_refused() -> None:
    data = joined(encode_reply(Reply(torch.ones(1, 2))))
    data[4] = 9
    with pytest.raises(PayloadError, match="version 9"):
        decode_reply(data)


@given(st.integers(0, 4), st.integers(0, 5), st.booleans())
def test_reply_round_trip(tokens: int, width: int, cold: bool) -> None:
    sums = torch.arange(float(tokens * width)).view(tokens, width)
    again = decode_reply(joined(encode_reply(Reply(sums, Timings(1, 2, 3), cold))))
    assert torch.equal(again.sums, sums)
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
