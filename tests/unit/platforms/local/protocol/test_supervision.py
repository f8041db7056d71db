from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import MessageError
from faasmoe.platforms.local.protocol.supervision import (
    AskHealth,
    HealthReport,
    Ready,
    pack,
    read_report,
    read_request,
)


@given(st.text())
def test_messages_arrive_as_they_were_sent(trouble: str) -> None:
    assert read_request(pack(AskHealth())) == AskHealth()
    assert read_report(pack(Ready())) == Ready()
    assert read_report(pack(HealthReport(trouble))) == HealthReport(trouble)


@given(st.binary())
def test_bytes_that_are_no_message_are_malformed(packet: bytes) -> None:
    for read in (read_request, read_report):
        with suppress(MessageError):  # and nothing else
            assert isinstance(read(packet), AskHealth | Ready | HealthReport)


def test_messages_of_one_direction_are_not_taken_in_the_other() -> None:
    with pytest.raises(MessageError, match="malformed"):
        read_request(pack(Ready()))
    with pytest.raises(MessageError, match="malformed"):
        read_report(pack(AskHealth()))
