"""What encryption costs a connection of a cluster: frames over plain sockets, over `ssl.SSLSocket`, and over ours.

    python -m benchmarks.cluster.encryption

Two processes on two cores exchange frames over TCP on loopback: round trips, and pieces of weights one way. CPU time is
of both processes; it says more than elapsed time on a machine that others use.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from tests import authorities

from benchmarks.figures import Figures, report
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.protocol.connection import Connection, prepare
from faasmoe.platforms.cluster.protocol.content import PIECE
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD, FrameKind, Outgoing, framed
from faasmoe.platforms.cluster.protocol.tls import TlsSocket, secured

SIZES = (64, 4 << 10, 24 << 10)  # bytes of the body of a frame and of its answer
RECORD = 16 << 10
ROUNDS = 5
SECONDS = 60.0  # for anything to answer


class RecordByRecord(ssl.SSLSocket):
    """`ssl`'s own socket under frames."""

    def sendmsg(self, buffers: Iterable[Buffer], *_: Any) -> int:  # type: ignore[override]
        parts = list(buffers)
        try:
            return self.send(parts[0] if len(parts[0]) >= RECORD else b"".join(parts)[:RECORD])
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        try:
            return super().recv_into(buffer, nbytes, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def recvmsg_into(self, buffers: Iterable[Any], *_: Any) -> tuple[int]:  # type: ignore[override]
        return (self.recv_into(next(iter(buffers))),)


def plain(sock: socket.socket, _: ssl.SSLContext) -> socket.socket:
    return sock


def record_by_record(sock: socket.socket, context: ssl.SSLContext) -> socket.socket:
    context.sslsocket_class = RecordByRecord
    return context.wrap_socket(sock, server_side=context.protocol == ssl.PROTOCOL_TLS_SERVER)


def ours(sock: socket.socket, context: ssl.SSLContext) -> TlsSocket:
    return secured(sock, context, time.monotonic() + SECONDS)


WAYS: dict[str, Callable[[socket.socket, ssl.SSLContext], socket.socket | TlsSocket]] = {
    "plain": plain,
    "ssl": record_by_record,
    "tls": ours,
}


def serve(folder: Path, way: str, pipe: Pipe) -> None:
    """Answer frames of any kind with as much, and take pieces without an answer, until the client is gone."""
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        sock, _ = listener.accept()
    prepare(sock)
    connection = Connection(WAYS[way](sock, authorities.identity(folder).context(serving=True)), MOST_HEAD)
    room = memoryview(bytearray(PIECE))
    with closing(connection):
        while True:
            frame = connection.batch()
            kind, body = frame.kind, frame.body
            if kind == FrameKind.MESSAGE:
                pipe.send(_cpu())
                if not body:
                    return
            connection.fill([room[:body]], soon())
            if kind == FrameKind.BATCH:
                connection.push(Outgoing(framed(FrameKind.REPLIES, b"head", [room[:body]])), soon())


def measure(folder: Path, way: str, trips: int, pieces: int) -> Figures:
    """Of one connection: microseconds of a round trip and of its CPU time, and the rate of pieces."""
    pipe, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=serve, args=(folder, way, theirs))
    process.start()
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    sock = socket.create_connection(("127.0.0.1", pipe.recv()))
    prepare(sock)
    context = authorities.server(folder).context(serving=False)
    figures: Figures = {}
    with closing(Connection(WAYS[way](sock, context), MOST_HEAD)) as connection:

        def ask(kind: FrameKind, body: Buffer = b"") -> None:
            connection.push(Outgoing(framed(kind, b"head", [body])), soon())

        def cpu() -> float:
            ask(FrameKind.MESSAGE, b"x")
            return _cpu() + float(pipe.recv())

        for size in SIZES:
            body, room, took = bytes(size), [memoryview(bytearray(size))], []
            before = cpu()
            for _ in range(trips):
                began = time.perf_counter()
                ask(FrameKind.BATCH, body)
                connection.batch()
                connection.fill(room, soon())
                took.append(time.perf_counter() - began)
            figures[f"{way}_{size}_us"] = statistics.median(took) * 1e6
            figures[f"{way}_{size}_cpu_us"] = (cpu() - before) / trips * 1e6
        piece, before, began = bytes(PIECE), cpu(), time.perf_counter()
        for _ in range(pieces):
            ask(FrameKind.PIECE, piece)
        its = cpu()
        seconds = time.perf_counter() - began
        figures[f"{way}_pieces_gb_s"] = pieces * PIECE / seconds / 1e9
        figures[f"{way}_pieces_cpu_s_gb"] = (its - before) / (pieces * PIECE / 1e9)
        ask(FrameKind.MESSAGE)
    process.join()
    return figures


def soon() -> float:
    return time.monotonic() + SECONDS


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trips", type=int, default=1000, help="round trips of each size, in each of the rounds")
    parser.add_argument("--pieces", type=int, default=50, help="of 4 MiB, in each of the rounds")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    rounds: list[Figures] = []
    with tempfile.TemporaryDirectory() as name:
        cores = os.sched_getaffinity(0)
        for _ in range(ROUNDS):
            figures: Figures = {}
            for way in WAYS:
                os.sched_setaffinity(0, cores)
                figures |= measure(Path(name), way, options.trips, options.pieces)
            rounds.append(figures)
    report({name: statistics.median(each[name] for each in rounds) for name in rounds[0]}, {}, options.json)


if __name__ == "__main__":
    main()
