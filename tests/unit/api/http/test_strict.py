from __future__ import annotations

import h11
import pytest

from faasmoe.api.http.strict import StrictConnection

START = b"POST / HTTP/1.1\r\nHost: here\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"


def events(*parts: bytes) -> list[str]:
    """Names of the events of a connection through which this comes."""
    connection = StrictConnection(16384)
    found = []
    for part in parts:
        connection.receive_data(part)
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            found.append(type(event).__name__)
    return found


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (START + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, "both Content-Length and"),
        (START + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + CHUNKS, "both Content-Length and"),
        (START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}", "conflicting Content-Length"),
        (START + b"Content-Length: 2, 3\r\n\r\n{}}", "conflicting Content-Length"),
        (START + b"Content-Length: +2\r\n\r\n{}", "bad Content-Length"),
        (START + b"Content-Length : 2\r\n\r\n{}", "illegal header line"),
        (START + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS, "illegal header line"),
        (START + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS, "folded over several lines"),
        (START + b"X: a\r\n\tb\r\n\r\n", "folded over several lines"),
        (START + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS, "Only Transfer-Encoding: chunked"),
        (START + b"Transfer-Encoding: gzip\r\n\r\n" + CHUNKS, "Only Transfer-Encoding: chunked"),
        (
            START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
            "multiple Transfer",
        ),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, "HTTP/1.0 does not know"),
        (START + b"X: a\nContent-Length: 2\r\n\r\n{}", "without CR"),
        (b"GET / HTTP/1.1\nHost: here\n\n", "without CR"),
        (START + b"X: a\rContent-Length: 2\r\n\r\n{}", "CR without LF"),
        (START + b"Host: there\r\n\r\n", "Found multiple Host"),
        (START + b"X: \x00\r\n\r\n", "illegal header line"),
        (START + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n", "illegal chunk header"),
    ],
)
def test_what_can_be_misread_is_refused_and_nothing_is_read_after_it(request_: bytes, message: str) -> None:
    connection = StrictConnection(16384)
    connection.receive_data(request_ + b"GET /smuggled HTTP/1.1\r\nHost: here\r\n\r\n")
    seen: list[object] = []
    with pytest.raises(h11.RemoteProtocolError, match=message):
        seen.extend(iter(connection.next_event, h11.NEED_DATA))
    assert not any(getattr(event, "target", b"") == b"/smuggled" for event in seen)
    with pytest.raises(h11.RemoteProtocolError, match=message):
        connection.next_event()


@pytest.mark.parametrize(
    "request_",
    [
        START + b"Content-Length: 4\r\n\r\na\n b",  # what is in a body is not looked at
        START + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        START + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKS,
    ],
)
def test_what_is_clear_is_taken_in_whatever_parts_it_comes(request_: bytes) -> None:
    wanted = ["Request", "Data", "EndOfMessage"]
    assert events(request_) == wanted
    assert [name for name in events(*(request_[i : i + 1] for i in range(len(request_)))) if name != "Data"] == [
        "Request",
        "EndOfMessage",
    ]
