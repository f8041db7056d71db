from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.protocol.wire import Lost

TEXTS = st.binary(max_size=200)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def received_after(data: bytes) -> bytes:
    """What is received when the other side sends `data` and closes."""
    with pair() as (ours, theirs):
        theirs.sendall(data)
        theirs.close()
        return wire.receive(ours)


@given(st.lists(TEXTS, min_size=1, max_size=2))
def test_messages_arrive_one_by_one_and_whole(texts: list[bytes]) -> None:
    with pair() as (ours, theirs):
        for text in texts:
            theirs.sendall(wire.framed(text))
        for text in texts:
            assert wire.receive(ours) == text


@given(TEXTS)
def test_framed_messages_are_taken_apart_by_head_and_text(text: bytes) -> None:
    data = wire.framed(text)
    assert wire.length_of(data[: wire.HEAD]) == len(data) - wire.HEAD
    assert data[wire.HEAD :] == text


@given(st.integers(wire.MAX_MESSAGE + 1, 2**64 - 1))
def test_a_message_that_would_be_too_long_is_refused_by_its_head(length: int) -> None:
    with pytest.raises(Lost, match=f"a message of {length} bytes was announced"):
        received_after(struct.pack("<Q", length))


def test_the_longest_message_is_allowed() -> None:
    assert wire.length_of(struct.pack("<Q", wire.MAX_MESSAGE)) == wire.MAX_MESSAGE


@given(TEXTS, st.data())
def test_a_message_cut_short_is_lost(text: bytes, data: st.DataObject) -> None:
    whole = wire.framed(text)
    with pytest.raises(Lost, match="closed by the other side"):
        received_after(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_patience_ends_with_the_sockets_timeout() -> None:
    with pair() as (ours, theirs):
        ours.settimeout(0.01)
        theirs.sendall(wire.framed(b"text")[:-1])
        with pytest.raises(TimeoutError):
            wire.receive(ours)
