from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import MessageError
from faasmoe.platforms.local.protocol.payloads import (
    Duty,
    Preload,
    PreloadFailed,
    ZygotePayload,
    encode,
    read_duty,
    read_preload,
    read_preload_failed,
)

DUTY = Duty(slot=1, handler="m:f", artifact=b"/weights", keep_alive=60.0, concurrency=1)


@given(
    st.builds(
        Duty,
        slot=st.integers(0, 2**31),
        handler=st.text(),
        artifact=st.binary(),
        keep_alive=st.none() | st.floats(0, 1e9),
        concurrency=st.integers(1, 99),
    )
)
def test_a_duty_arrives_as_it_was_sent(duty: Duty) -> None:
    assert read_duty(encode(duty)) == duty


def test_what_is_preloaded_arrives_as_it_was_sent() -> None:
    assert read_preload(encode(Preload(("a", "b"), 2))) == Preload(("a", "b"), 2)
    assert read_preload_failed(encode(PreloadFailed("no"))) == PreloadFailed("no")


@given(st.binary())
def test_bytes_that_are_no_payload_are_malformed(payload: bytes) -> None:
    for read in (read_duty, read_preload, read_preload_failed):
        with suppress(MessageError):  # and nothing else
            assert isinstance(read(payload), ZygotePayload)


def test_one_payload_is_not_taken_for_another() -> None:
    with pytest.raises(MessageError, match="malformed message"):
        read_duty(encode(PreloadFailed("no")))
