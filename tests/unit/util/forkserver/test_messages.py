from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import MessageError
from faasmoe.util.forkserver.messages import (
    Alive,
    Ended,
    Event,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Killed,
    Load,
    Loaded,
    LoadFailed,
    Order,
    Packet,
    Ping,
    pack,
    read_event,
    read_order,
)

numbers = st.integers(0, 2**63 - 1)
orders: st.SearchStrategy[Order] = st.one_of(
    st.builds(Load, st.binary()),
    st.builds(Fork, numbers, st.binary()),
    st.builds(Kill, numbers),
    st.builds(Ping),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Loaded, st.binary()),
    st.builds(LoadFailed, st.binary()),
    st.builds(Forked, numbers, numbers),
    st.builds(ForkFailed, numbers, st.text()),
    st.builds(Killed, numbers),
    st.builds(Alive),
    st.builds(Ended, numbers, st.integers(-64, 255)),
)


@given(orders, events)
def test_packets_arrive_as_they_were_sent(order: Order, event: Event) -> None:
    assert read_order(pack(order)) == order
    assert read_event(pack(event)) == event


@given(orders, st.integers(0, 20))
def test_a_packet_that_was_cut_is_malformed(order: Order, length: int) -> None:
    packet = pack(order)
    with pytest.raises(MessageError):
        read_order(packet[: min(length, len(packet) - 1)])


@given(st.binary())
def test_bytes_that_are_no_message_are_malformed(packet: bytes) -> None:
    for read in (read_order, read_event):
        with suppress(MessageError):  # and nothing else
            assert isinstance(read(packet), Packet)


def test_messages_of_one_direction_are_not_taken_in_the_other() -> None:
    with pytest.raises(MessageError, match="malformed"):
        read_order(pack(Killed(1)))
    with pytest.raises(MessageError, match="malformed"):
        read_event(pack(Kill(1)))
