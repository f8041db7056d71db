"""TLS 1.3 under frames: sockets that know their peer, and say in words what a certificate lacks."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.local.protocol.wire import Lost

_RECORD = 16 << 10  # bytes; RFC 8446, section 5.1
_WINDOW = 256 << 10  # bytes that are encrypted, or received, at once
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


class TlsSocket:
    """A connected stream socket under TLS, for frames. It does not block, and raises what plain sockets raise.

    OpenSSL works in memory, and this object moves what is encrypted: many records by one system call each way. Reading
    by `ssl.SSLSocket` takes two calls for each record of 16 KiB (decision 40).
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Takes the socket over."""
        sock.setblocking(False)
        self.socket = sock
        self._arrived, self._sealed = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._sealed, server_side=_serves(context))
        self._window = memoryview(bytearray(_WINDOW))
        self._leaving: bytes | memoryview = b""  # what is encrypted and not sent yet
        self._taken = 0  # bytes that it was made of
        self._rest = False  # whether OpenSSL has decrypted more than there was room for

    def sendmsg(self, buffers: Sequence[Buffer]) -> int:
        """Send the beginning of the parts. After `BlockingIOError` the same parts must be given again."""
        if not self._leaving:
            self._taken = self._tls.write(_beginning(buffers))
            self._leaving = self._sealed.read()
        self._flush()
        return self._taken

    def _flush(self) -> None:
        """Send what is encrypted. Raises `BlockingIOError` if the socket does not take all of it."""
        while (sent := self.socket.send(self._leaving)) < len(self._leaving):
            self._leaving = memoryview(self._leaving)[sent:]
        self._leaving = b""

    def recv_into(self, buffer: Buffer) -> int:
        """Receive into a buffer what is there; 0 at the end of the stream.

        Raises `LinkRefused` if the other side has refused the certificate of this one, `Lost`.
        """
        while not (self.holds and (opened := self._opened(buffer))):
            if not (got := self.socket.recv_into(self._window)):
                return 0
            self._arrived.write(self._window[:got])
        return opened

    def recvmsg_into(self, buffers: Iterable[Buffer]) -> tuple[int]:
        """Receive into one buffer after the other what is there."""
        total = 0
        for buffer in buffers:
            if total and not self.holds:
                break
            got = self._opened(buffer) if total else self.recv_into(buffer)
            total += got
            if got < len(buffer):
                break
        return (total,)

    def _opened(self, buffer: Buffer) -> int:
        """Decrypt into `buffer` of what was received. Returns how many bytes that gave. Raises `Lost`."""
        room, at, left = len(buffer), 0, buffer
        try:
            while got := int(self._tls.read(room - at, left)):  # the stubs know of bytes alone
                at += got
                self._rest = at == room and self._tls.pending() > 0  # the end of a record that had no room
                if at == room or not self._arrived.pending:
                    break
                left = memoryview(buffer)[at:]
        except ssl.SSLWantReadError:  # the rest of a record is still to come
            self._rest = False
        except ssl.SSLError as error:
            raise refusal(error) from error
        return at

    @property
    def holds(self) -> bool:
        """Whether it has received more than it has handed out, if only a part of a record."""
        return self._rest or self._arrived.pending > 0

    def shake(self, deadline: float) -> None:
        """Shake hands. Raises `LinkRefused` if one side refuses the other's certificate, `Lost`."""
        while True:
            try:
                self._tls.do_handshake()
                self._send_all(deadline)
                return
            except ssl.SSLWantReadError:
                self._send_all(deadline)
                self._await(deadline)
            except ssl.SSLError as error:
                with suppress(Lost):
                    self._send_all(deadline)
                self._linger()
                raise refusal(error) from error

    def _send_all(self, deadline: float) -> None:
        """Send what OpenSSL has written of itself."""
        self._leaving = bytes(self._leaving) + self._sealed.read()
        while True:
            try:
                self._flush()
                return
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            except OSError as error:
                raise Lost(error.strerror or str(error)) from error

    def _await(self, deadline: float) -> None:
        """Receive what comes next."""
        self._wait(select.POLLIN, deadline)
        try:
            if got := self.socket.recv_into(self._window):
                self._arrived.write(self._window[:got])
            else:
                self._arrived.write_eof()
        except OSError as error:
            raise Lost(error.strerror or str(error)) from error

    def _wait(self, wanted: int, deadline: float) -> None:
        if not _ready(self.socket, wanted, deadline):
            raise Lost("it does not answer")

    def _linger(self) -> None:
        """Let the other side read the last words: closing a socket with unread bytes would reset the connection."""
        deadline, left = time.monotonic() + _LINGER, _MOST_LINGERED
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            while left > 0 and _ready(self.socket, select.POLLIN, deadline):
                got = len(self.socket.recv(min(left, _RECORD)))
                left -= got or left

    @property
    def peer(self) -> Peer | None:
        """Who is at the other end; None if it has shown no certificate."""
        shown: dict[str, Any] = self._tls.getpeercert() or {}
        if not shown:
            return None
        subject = {str(name): str(value) for part in shown["subject"] for name, value in part}
        role, name = subject.get("organizationalUnitName", ""), subject.get("commonName", "")
        return Peer(role, name, self._tls.getpeercert(binary_form=True) or b"")

    def fileno(self) -> int:
        """See `select.poll`, which does not know of what it `holds`."""
        return self.socket.fileno()

    def getsockname(self) -> Any:
        """The address of this end."""
        return self.socket.getsockname()

    def shutdown(self, how: int) -> None:
        """End the connection, also under another thread that uses it."""
        self.socket.shutdown(how)

    def close(self) -> None:
        """May be called twice."""
        self.socket.close()


def secured(sock: socket.socket, context: ssl.SSLContext, deadline: float) -> TlsSocket:
    """Shake hands over a connected socket, as its `context` says. Takes the socket over, also if it fails.

    `deadline` is an instant of `time.monotonic`. Raises `LinkRefused` if one side refuses the other's certificate,
    `Lost`.
    """
    try:
        stream = TlsSocket(sock, context)
    except OSError as error:
        sock.close()
        raise Lost(error.strerror or str(error)) from error
    try:
        stream.shake(deadline)
    except BaseException:
        stream.close()
        raise
    return stream


def _beginning(buffers: Sequence[Buffer]) -> Buffer:
    """What is encrypted at once: large parts where they lie, small ones copied together."""
    if len(buffers) == 1 or len(buffers[0]) >= _RECORD:
        return memoryview(buffers[0])[:_WINDOW]
    if sum(map(len, buffers)) <= _RECORD:
        return b"".join(buffers)
    small = bytearray()
    for part in buffers:
        if len(part) >= _RECORD or len(small) + len(part) > _WINDOW:
            break
        small += part
    return small


def _serves(context: ssl.SSLContext) -> bool:
    return context.protocol == ssl.PROTOCOL_TLS_SERVER


def _ready(sock: socket.socket, wanted: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(sock, wanted)
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
