"""TLS 1.3 under frames: sockets that know their peer, and say in words what a certificate lacks."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.local.protocol.wire import Lost

_RECORD = 16 << 10  # bytes; RFC 8446, section 5.1
_LINGER = 1.0  # seconds for the other side to read why it was refused
_MOST_LINGERED = 256 << 10  # bytes of the other side that are thrown away meanwhile

_NOT_YET, _EXPIRED = 9, 10  # X509_V_ERR_*, x509_vfy.h
_OTHERS = (7, 18, 19, 20, 21, 30)  # signed by somebody else
_FOREIGN = "it belongs to another cluster: it does not know the authority of this side"
_OTHERWISE = "it does not speak TLS 1.3, as all in a cluster do"
_ALERTS = {  # what the other side says of our certificate (RFC 8446, section 6.2)
    "CERTIFICATE_EXPIRED": "it says that the certificate of this side has expired: compare the clocks",
    "BAD_CERTIFICATE": "it refuses the certificate of this side, which may not be valid yet by its clock: compare the "
    "clocks",
    "UNKNOWN_CA": _FOREIGN,
    "DECRYPT_ERROR": _FOREIGN,
    "CERTIFICATE_REQUIRED": "it wants a certificate, and this side has none",
    "PROTOCOL_VERSION": _OTHERWISE,
}
_REASONS = {  # of OpenSSL
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has shown no certificate",
    "WRONG_VERSION_NUMBER": _OTHERWISE,
    "HTTP_REQUEST": _OTHERWISE,
    "UNSUPPORTED_PROTOCOL": _OTHERWISE,
}


class Peer(NamedTuple):
    """Who is at the other end of a connection, by the certificate that it has shown."""

    role: str
    name: str
    certificate: bytes  # DER


class TlsSocket(ssl.SSLSocket):
    """A stream socket for frames, which does not block and raises what other sockets raise.

    It takes a list of parts as `sendmsg` does, which `ssl` has not. Parts that are smaller than a record are copied
    together into one.
    """

    def sendmsg(self, buffers: Iterable[Buffer], *_: Any) -> int:  # type: ignore[override]
        """Send the beginning of the parts. After `BlockingIOError` the same parts must be given again."""
        record = bytearray()
        for part in buffers:
            view = memoryview(part)
            if not record and view.nbytes >= _RECORD:
                return self._send(view)
            record += view.cast("B")[: _RECORD - len(record)]
            if len(record) == _RECORD:
                break
        return self._send(record) if record else 0

    def _send(self, data: Buffer) -> int:
        try:
            return self.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise refusal(error) from error

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive into a buffer. Raises `LinkRefused` if the other side has refused the certificate of this one."""
        try:
            return super().recv_into(buffer, nbytes, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise refusal(error) from error

    def recvmsg_into(  # type: ignore[override]
        self, buffers: Iterable[Any], *_: Any
    ) -> tuple[int, list[Any], int, Any]:
        """Receive into one buffer after the other what is there."""
        total = 0
        for buffer in buffers:
            view, at = memoryview(buffer), 0
            while at < view.nbytes:
                try:
                    got = self.recv_into(view[at:])
                except BlockingIOError:
                    if not total:
                        raise
                    return total, [], 0, None
                if not got:
                    return total, [], 0, None
                at += got
                total += got
        return total, [], 0, None

    def shutdown(self, how: int) -> None:
        """End the connection under another thread that uses it, which must not take what is encrypted for data."""
        socket.socket.shutdown(self, how)

    @property
    def peer(self) -> Peer | None:
        """Who is at the other end; None if it has shown no certificate."""
        shown: dict[str, Any] = self.getpeercert() or {}
        if not shown:
            return None
        subject = {str(name): str(value) for part in shown["subject"] for name, value in part}
        role, name = subject.get("organizationalUnitName", ""), subject.get("commonName", "")
        return Peer(role, name, self.getpeercert(binary_form=True) or b"")


def secured(sock: socket.socket, context: ssl.SSLContext, deadline: float) -> TlsSocket:
    """Shake hands over a connected socket, as its `context` says. Takes the socket over, also if it fails.

    `deadline` is an instant of `time.monotonic`. Raises `LinkRefused` if one side refuses the other's certificate,
    `Lost`.
    """
    context.sslsocket_class = TlsSocket
    sock.setblocking(False)
    try:
        stream = context.wrap_socket(sock, server_side=_serves(context), do_handshake_on_connect=False)
    except OSError as error:
        sock.close()
        raise Lost(error.strerror or str(error)) from error
    try:
        _shake(stream, deadline)
    except BaseException:
        stream.close()
        raise
    assert isinstance(stream, TlsSocket)  # noqa: S101 (the context makes no others)
    return stream


def _serves(context: ssl.SSLContext) -> bool:
    return context.protocol == ssl.PROTOCOL_TLS_SERVER


def _shake(stream: ssl.SSLSocket, deadline: float) -> None:
    while True:
        try:
            stream.do_handshake()
            return
        except ssl.SSLWantReadError:
            wanted = select.POLLIN
        except ssl.SSLWantWriteError:
            wanted = select.POLLOUT
        except ssl.SSLError as error:
            linger(stream)
            raise refusal(error) from error
        except OSError as error:
            raise Lost(error.strerror or str(error)) from error
        if not _ready(stream, wanted, deadline):
            raise Lost("it does not answer")


def linger(stream: socket.socket) -> None:
    """Let the other side read the last words: closing a socket with unread bytes would reset the connection."""
    deadline, left = time.monotonic() + _LINGER, _MOST_LINGERED
    with suppress(OSError):
        socket.socket.shutdown(stream, socket.SHUT_WR)
        while left > 0 and _ready(stream, select.POLLIN, deadline):
            got = len(socket.socket.recv(stream, min(left, _RECORD)))
            left -= got or left


def _ready(stream: socket.socket, wanted: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(stream, wanted)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def refusal(error: ssl.SSLError) -> Lost:
    """What an error of TLS says of the other side."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return LinkRefused(_fault(error))
    reason = str(error.reason or "")
    for alert, cause in _ALERTS.items():
        if reason.endswith(f"ALERT_{alert}"):
            return LinkRefused(cause)
    if reason in _REASONS:
        return LinkRefused(_REASONS[reason])
    if reason == "UNEXPECTED_EOF_WHILE_READING":
        return Lost("closed by the other side")
    return Lost(f"TLS failed: {reason.lower().replace('_', ' ') or error}")


def _fault(error: ssl.SSLCertVerificationError) -> str:
    """What the other side's certificate lacks."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    if error.verify_code == _EXPIRED:
        return f"its certificate has expired; the clock of this machine says {clock} UTC"
    if error.verify_code == _NOT_YET:
        return f"its certificate is not valid yet; the clock of this machine says {clock} UTC: compare the clocks"
    if error.verify_code in _OTHERS:
        return "it belongs to another cluster: its certificate is by an authority that this side does not know"
    return f"its certificate is refused: {error.verify_message}"
