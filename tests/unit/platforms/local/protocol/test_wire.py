from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.protocol.wire import Lost

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.dictionaries(st.text(max_size=5), VALUES, max_size=3)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def received_after(data: bytes) -> tuple[dict[str, Any], list[int]]:
    """What is received when the other side sends `data` and closes."""
    with pair() as (ours, theirs):
        theirs.sendall(data)
        theirs.close()
        return wire.receive(ours)


def headed(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@given(st.lists(MESSAGES, min_size=1, max_size=2))
def test_messages_arrive_one_by_one_and_whole(messages: list[dict[str, Any]]) -> None:
    with pair() as (ours, theirs):
        for message in messages:
            wire.send(theirs, message)
        for message in messages:
            assert wire.receive(ours) == (message, [])


class Hasty(socket.socket):
    """The other side hangs up as soon as it has the message."""

    peer: socket.socket
    heard: dict[str, Any]

    def sendmsg(self, *args: Any) -> int:
        sent = super().sendmsg(*args)
        self.heard, fds = wire.receive(self.peer)
        os.close(*fds)
        self.peer.close()
        return sent


def test_who_has_the_whole_message_may_hang_up() -> None:
    with pair() as (ours, theirs), Hasty(fileno=ours.detach()) as hasty:
        hasty.peer = theirs
        wire.send(hasty, {"a": 1}, [0])  # else it would be sent to somebody else again
        assert hasty.heard == {"a": 1}


@given(MESSAGES)
def test_packed_messages_are_taken_apart_by_head_and_text(message: dict[str, Any]) -> None:
    data = wire.pack(message)
    assert wire.length_of(data[:8]) == len(data) - 8
    assert wire.parse(data[8:]) == message
    assert wire.parse(bytearray(data[8:])) == message


@pytest.mark.parametrize("count", [1, 3, 8])
def test_descriptors_arrive_in_order_and_can_be_used(count: int) -> None:
    ends = [os.pipe() for _ in range(count)]
    received: list[int] = []
    try:
        with pair() as (ours, theirs):
            wire.send(theirs, {"fds": count}, [writing for _, writing in ends])
            wire.send(theirs, {"fds": 0})
            message, received = wire.receive(ours)
            assert message == {"fds": count}
            assert wire.receive(ours) == ({"fds": 0}, [])
        assert len(received) == count
        for i, fd in enumerate(received):
            os.write(fd, f"to {i}".encode())
        assert [os.read(reading, 10) for reading, _ in ends] == [f"to {i}".encode() for i in range(count)]
    finally:
        for fd in (*(fd for both in ends for fd in both), *received):
            os.close(fd)


@given(st.integers(wire.MAX_MESSAGE + 1, 2**64 - 1))
def test_a_message_that_would_be_too_long_is_refused_by_its_head(length: int) -> None:
    with pytest.raises(Lost, match=f"a message of {length} bytes was announced"):
        received_after(struct.pack("<Q", length))


def test_the_longest_message_is_allowed() -> None:
    assert wire.length_of(struct.pack("<Q", wire.MAX_MESSAGE)) == wire.MAX_MESSAGE


@given(st.binary(max_size=100))
def test_noise_is_an_object_or_lost(noise: bytes) -> None:
    try:
        message = wire.parse(noise)
    except Lost:
        return
    assert isinstance(message, dict)
    assert received_after(headed(noise)) == (message, [])


@pytest.mark.parametrize("text", [b"", b"{", b"{'a': 1}", b"\xff\xfe\xfd", b'{"a": 1} x', b"9" * 5000])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(Lost, match="not JSON"):
        received_after(headed(text))


@pytest.mark.parametrize("text", [b"[]", b"3", b'"{}"', b"null", b"[{}]"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(Lost, match="not a JSON object"):
        received_after(headed(text))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a":[{"b":'])
def test_deeply_nested_json_is_refused(opening: bytes) -> None:
    with pytest.raises(Lost, match="not JSON"):
        wire.parse(opening * 100_000)


@given(MESSAGES, st.data())
def test_a_message_cut_short_is_lost(message: dict[str, Any], data: st.DataObject) -> None:
    whole = wire.pack(message)
    with pytest.raises(Lost, match="closed by the other side"):
        received_after(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_sending_to_a_closed_connection_is_lost() -> None:
    with pair() as (ours, theirs), open(os.devnull) as file:
        ours.close()
        with pytest.raises(Lost):
            wire.send(theirs, {"a": 1})
        with pytest.raises(Lost):
            wire.send(theirs, {"a": 1}, [file.fileno()])


def test_patience_ends_with_the_sockets_timeout() -> None:
    with pair() as (ours, theirs):
        ours.settimeout(0.01)
        theirs.sendall(wire.pack({"a": 1})[:-1])
        with pytest.raises(TimeoutError):
            wire.receive(ours)
        theirs.settimeout(0.01)
        with pytest.raises(TimeoutError):
            wire.send(theirs, {"a": "x" * (8 << 20)})


def test_only_descriptors_are_taken_from_what_comes_beside_a_message() -> None:
    rights = struct.pack("3i", 5, 6, 7)
    ancillary = [
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, rights[:8]),
        (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, rights),
        (socket.IPPROTO_IP, socket.SCM_RIGHTS, rights),
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, rights[8:] + b"\0\0"),
    ]
    assert wire.descriptors(ancillary) == [5, 6, 7]
    assert wire.descriptors([]) == []
