"""TLS over a pair of sockets, under frames."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.platforms.cluster.authority.identity import bare_context
from faasmoe.platforms.cluster.protocol import tls
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import FrameKind, FrameReader, Outgoing, framed
from faasmoe.platforms.cluster.protocol.tls import TlsSocket, secured
from faasmoe.platforms.local.protocol.wire import Lost
from tests import authorities


def soon() -> float:
    return monotonic() + 10


@pytest.fixture
def ends(folder: Path) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    with connected(folder) as pair:
        yield pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@contextmanager
def connected(folder: Path) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as other:
        agent = other.submit(secured, theirs, authorities.identity(folder).context(serving=True), soon())
        client = secured(ours, authorities.server(folder).context(serving=False), soon())
        with closing(client), closing(agent.result(10)) as served:
            yield client, served


def received(sock: TlsSocket, room: list[int]) -> list[bytes]:
    """One frame, its body in views of these sizes."""
    reader = FrameReader()
    while (frame := reader.head(sock)) is None:
        pass
    assert sum(room) == frame.body
    views = [memoryview(bytearray(size)) for size in room]
    head = bytes(frame.head)
    reader.into(views)
    while not reader.fill(sock):
        pass
    return [head, *map(bytes, views)]


@pytest.mark.parametrize(
    "sizes", [[0], [1, 2, 3], [16 << 10], [4096] * 40, [5, 100_000, 7, 8191, 8192, 30_000], [1 << 20, 1, 1 << 20]]
)
def test_frames_arrive_as_they_were_sent(ends: tuple[TlsSocket, TlsSocket], sizes: list[int]) -> None:
    client, agent = ends
    body = [os.urandom(size) for size in sizes]
    with ThreadPoolExecutor(1) as other:
        got = other.submit(received, agent, sizes)
        outgoing = Outgoing(framed(FrameKind.BATCH, b"head", body))
        while not outgoing.flush(client):  # the socket takes it in pieces
            pass
        assert got.result(10) == [b"head", *body]


def test_what_came_with_the_frame_before_is_not_waited_for(ends: tuple[TlsSocket, TlsSocket]) -> None:
    client, agent = ends
    for number in range(3):
        assert Outgoing(framed(FrameKind.BATCH, bytes([number]), [bytes(30_000)])).flush(client)
    connection = Connection(agent, 100)
    for number in range(3):
        frame = connection.batch()  # which would wait for as long as it takes
        assert bytes(frame.head) == bytes([number])
        connection.fill([memoryview(bytearray(30_000))], soon())
    assert not agent.holds


@given(st.lists(st.integers(1, 50_000), min_size=1, max_size=8), st.lists(st.integers(1, 400_000), max_size=8))
@settings(deadline=None, max_examples=30)
def test_a_stream_is_the_same_whatever_pieces_it_is_read_in(
    folder: Path, sizes: list[int], rooms: list[int]
) -> None:
    with connected(folder) as (client, agent), ThreadPoolExecutor(1) as other:
        body = [os.urandom(size) for size in sizes]
        sent = other.submit(send_all, client, body)
        whole, got = b"".join(body), b""
        while len(got) < len(whole):
            room = memoryview(bytearray(rooms.pop() if rooms else 65_536))
            half = len(room) // 2
            try:
                got += room[: agent.recvmsg_into([room[:half], room[half:]] if half else [room])[0]]
            except BlockingIOError:
                continue
        sent.result(10)
        assert got == whole


def send_all(sock: TlsSocket, parts: list[bytes]) -> None:
    outgoing = Outgoing(parts)
    while not outgoing.flush(sock):
        pass


def test_a_cut_ends_both_sides_and_nothing_encrypted_is_taken_for_data(ends: tuple[TlsSocket, TlsSocket]) -> None:
    client, agent = ends
    reader = FrameReader()
    for _ in range(4):
        assert Outgoing(framed(FrameKind.BATCH, b"head", [bytes(10_000)])).flush(client)
    agent.shutdown(socket.SHUT_RDWR)
    room = [memoryview(bytearray(b"x" * 10_000))]

    def read_all() -> None:
        while (frame := reader.head(agent)) is not None:
            assert bytes(frame.head) == b"head"
            reader.into(room)
            assert reader.fill(agent)
            assert not any(room[0])

    with pytest.raises(Lost, match="closed by the other side"):
        read_all()
    with pytest.raises(Lost):
        Connection(client, 100).frame(soon())


def test_a_thread_that_waits_is_woken_by_a_cut(ends: tuple[TlsSocket, TlsSocket]) -> None:
    connection = Connection(ends[0], 100)
    timer = threading.Timer(0.05, connection.cut)
    timer.start()
    with pytest.raises(Lost, match="closed by the other side"):
        connection.frame(soon())
    timer.join()


def test_tls_1_3_is_the_least(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    old = bare_context(serving=False)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with ThreadPoolExecutor(1) as other:
        agent = other.submit(secured, theirs, authorities.identity(tmp_path).context(serving=True), soon())
        with pytest.raises(Lost, match=r"it does not speak TLS 1\.3"):
            secured(ours, old, soon())
        with pytest.raises(Lost):
            agent.result(10)


def test_strangers_have_no_name_and_only_some_listeners_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_LINGER", 0.05)
    node = authorities.identity(tmp_path)
    for strangers in (True, False):
        ours, theirs = socket.socketpair()
        context = node.context(serving=True, strangers=strangers)
        with ThreadPoolExecutor(1) as other:
            agent = other.submit(secured, theirs, context, soon())
            with closing(secured(ours, bare_context(serving=False), soon())):
                if strangers:
                    with closing(agent.result(10)) as served:
                        assert served.peer is None
                else:
                    with pytest.raises(Lost, match="it has shown no certificate"):
                        agent.result(10)
