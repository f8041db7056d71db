"""Connections of clusters that are encrypted for their handshake alone, to measure what encryption costs.

    python -m benchmarks.cluster.unencrypted node OPTION...

is `faasmoe node` with such connections. It is for benchmarks: no option of the product leads here.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from faasmoe.cli.main import main
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.protocol import handshake
from faasmoe.platforms.cluster.protocol.tls import TlsSocket, secured


class Unencrypted(TlsSocket):
    """What it sends and receives is as it is."""

    def sendmsg(self, buffers: Sequence[Buffer]) -> int:
        return self.socket.sendmsg(buffers)

    def recv_into(self, buffer: Buffer) -> int:
        if came := self._arrived.read(len(buffer)):  # with the end of the handshake
            memoryview(buffer)[: len(came)] = came
            return len(came)
        return self.socket.recv_into(buffer)

    def recvmsg_into(self, buffers: Iterable[Buffer]) -> tuple[int]:
        if self._arrived.pending:
            return (self.recv_into(next(iter(buffers))),)
        return self.socket.recvmsg_into(buffers)[:1]


def unencrypted(sock: socket.socket, context: ssl.SSLContext, deadline: float) -> TlsSocket:
    """See `tls.secured`."""
    stream = secured(sock, context, deadline)
    stream.__class__ = Unencrypted
    return stream


@contextmanager
def connections_to(addresses: Collection[str]) -> Iterator[None]:
    """Connections of this process to these agents are such ones while the block runs."""

    def chosen(sock: socket.socket, context: ssl.SSLContext, deadline: float) -> TlsSocket:
        host, port = sock.getpeername()[:2]
        return (unencrypted if f"{host}:{port}" in addresses else secured)(sock, context, deadline)

    with patch.object(handshake, "secured", chosen):
        yield


if __name__ == "__main__":
    setattr(handshake, "secured", unencrypted)  # noqa: B010 - it is imported there
    main()
