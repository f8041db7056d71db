"""The ends of a connection, both in this process."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from faasmoe.errors import MessageError
from faasmoe.util.forkserver.connection import ClientLeft, Connection
from faasmoe.util.forkserver.messages import LARGEST_PACKET, Fork, Kill, Load, Loaded, pack, read_event


class Pair:
    """Both ends of a connection, in this process."""

    def __init__(self) -> None:
        self.client, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection = Connection(theirs)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.connection.close()


def test_orders_come_with_their_descriptors_and_events_go() -> None:
    with Pair() as pair, open(os.devnull) as file:
        socket.send_fds(pair.client, [pack(Fork(1, b"x"))], [file.fileno()])
        order, fds = pair.connection.receive()
        assert order == Fork(1, b"x")
        assert os.path.sameopenfile(fds[0], file.fileno())
        os.close(fds[0])
        pair.client.send(pack(Kill(1)))
        assert pair.connection.receive() == (Kill(1), [])
        pair.connection.send(Loaded(b"x"))
        assert read_event(pair.client.recv(LARGEST_PACKET)) == Loaded(b"x")
        pair.client.close()
        with pytest.raises(ClientLeft):
            pair.connection.receive()
        with pytest.raises(ClientLeft):
            pair.connection.send(Loaded())


def test_the_first_order_is_load() -> None:
    with Pair() as pair:
        pair.client.send(pack(Load(b"x")))
        assert pair.connection.load() == b"x"
        pair.client.send(pack(Kill(1)))
        with pytest.raises(MessageError, match="Kill, which is not Load, first"):
            pair.connection.load()


@pytest.mark.parametrize("packet", [b"\xc1", pack(Load(bytes(LARGEST_PACKET)))], ids=["malformed", "too long"])
def test_a_bad_packet_leaves_no_descriptor_open(packet: bytes) -> None:
    with Pair() as pair, open(os.devnull) as file:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(pair.client, [packet], [file.fileno()])
        with pytest.raises(MessageError, match=r"a malformed message of|a packet of more than"):
            pair.connection.receive()
        assert len(os.listdir("/proc/self/fd")) == before


class Exhausted(socket.socket):
    """Of a process that has no descriptor left but for the first that comes."""

    def recvmsg(self, *given: Any) -> Any:
        packet, ancillary, flags, address = super().recvmsg(*given)
        return packet, ancillary, flags | socket.MSG_CTRUNC, address


def test_an_order_of_which_some_descriptors_did_not_arrive_comes_without_any() -> None:
    client, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with client, Exhausted(fileno=theirs.detach()) as exhausted, open(os.devnull) as file:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(client, [pack(Fork(1))], [file.fileno()])
        assert Connection(exhausted).receive() == (Fork(1), [])
        assert len(os.listdir("/proc/self/fd")) == before
