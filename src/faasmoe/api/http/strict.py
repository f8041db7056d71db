"""Refuses requests that two servers could read differently.

A proxy and this server that disagree about where a request ends let a client smuggle a second one past the proxy
(RFC 9112, section 11.2). h11 refuses most ambiguous requests; this module refuses the rest.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import h11

_PATH = re.compile(rb"\s*\S+ ([^\s?]+)[\s?]")  # in a request line
_END = re.compile(rb"\n\r?\n")  # of a head
_FLAWS = (
    (re.compile(rb"(?<!\r)\n"), "a line of the request's head ends without CR"),
    (re.compile(rb"\r[^\n]"), "there is a CR without LF in the request's head"),
    (re.compile(rb"\n[ \t]"), "a header is folded over several lines"),
)


class StrictConnection(h11.Connection):
    """An h11 connection of a server that refuses all requests which RFC 9112 lets a server refuse."""

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self.refusal: h11.RemoteProtocolError | None = None  # why nothing more is read
        self.refused = b""  # the head that was refused; empty if its body was

    def next_event(self) -> Any:
        """See `h11.Connection`. Raises `h11.RemoteProtocolError`, after which nothing more is read."""
        if self.refusal is not None:
            raise self.refusal
        head = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        try:
            _check_head(head)
            event = super().next_event()
            if isinstance(event, h11.Request):
                _check_framing(event)
        except h11.RemoteProtocolError as error:
            self.refusal, self.refused = error, head
            raise
        return event


def path_of(head: bytes) -> str:
    """The path in the request line of `head`; empty if the line has not been received that far."""
    found = _PATH.match(head)
    return unquote(found[1].decode("latin-1")) if found else ""


def _check_head(received: bytes) -> None:
    """Check the bytes of a head, complete or not. h11 accepts bare LF, and joins folded lines."""
    end = _END.search(received)
    head = received[: end.end()] if end else received
    for flaw, message in _FLAWS:
        if flaw.search(head):
            raise h11.RemoteProtocolError(message)


def _check_framing(request: h11.Request) -> None:
    """Check how the body's end is found. h11 would ignore Content-Length beside Transfer-Encoding."""
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" not in names:
        return
    if b"content-length" in names:
        raise h11.RemoteProtocolError("the request has both Content-Length and Transfer-Encoding")
    if request.http_version != b"1.1":
        raise h11.RemoteProtocolError("the request has Transfer-Encoding, which HTTP/1.0 does not know")
