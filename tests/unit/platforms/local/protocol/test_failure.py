from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol.failure import CallFailure, read_failure


@given(st.text(), st.text())
def test_a_failure_arrives_as_it_was_sent(kind: str, message: str) -> None:
    failure = CallFailure(kind, message)
    assert read_failure(failure.encoded()) == failure


def test_a_client_learns_the_error_and_no_folder_of_this_machine() -> None:
    failure = CallFailure.of(ValueError("/home/somebody/model/a.safetensors: too\nshort"))
    assert failure == CallFailure("ValueError", "a.safetensors: too short")
    assert str(failure) == "ValueError: a.safetensors: too short"


def test_a_failure_may_quote_what_is_not_unicode() -> None:
    failure = CallFailure.of(ValueError("\udcff is no path"))
    assert read_failure(failure.encoded()) == CallFailure("ValueError", r"\udcff is no path")


@pytest.mark.parametrize("data", [b"", b"ValueError: short", b"\xc1", b"\x91\xa1x"])
def test_what_is_no_failure_is_one_of_the_instance(data: bytes) -> None:
    failure = read_failure(data)
    assert failure.kind == "MessageError"
    assert f"of {len(data)} bytes" in failure.message
