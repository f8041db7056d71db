"""Messages between the supervisor and its daemon, as MessagePack.

Each is a packet of the SOCK_SEQPACKET socket that is the daemon's standard input. The daemon says `Ready` once and
first, and answers each `AskHealth` by `HealthReport`.
"""

from __future__ import annotations

import msgspec

from faasmoe.util.msgpack import decode

LARGEST_PACKET = 4096  # bytes


class SupervisionMessage(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages; on the wire an array that begins with the class's name."""


class AskHealth(SupervisionMessage, frozen=True):
    """To the daemon: answer, which shows that it lives."""


class Ready(SupervisionMessage, frozen=True):
    """From the daemon: it takes connections."""


class HealthReport(SupervisionMessage, frozen=True):
    """From the daemon: it lives."""

    trouble: str  # why it cannot start instances now; empty if it can


pack = msgspec.msgpack.Encoder().encode
_request: msgspec.msgpack.Decoder[AskHealth] = msgspec.msgpack.Decoder(AskHealth)
_report: msgspec.msgpack.Decoder[Ready | HealthReport] = msgspec.msgpack.Decoder(Ready | HealthReport)


def read_request(packet: bytes) -> AskHealth:
    """A message to the daemon. Raises `MessageError`."""
    return decode(_request, packet)


def read_report(packet: bytes) -> Ready | HealthReport:
    """A message from the daemon. Raises `MessageError`."""
    return decode(_report, packet)
