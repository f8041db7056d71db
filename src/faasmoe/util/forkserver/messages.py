"""Messages between a fork server and its client: MessagePack, one message a packet of a SOCK_SEQPACKET socket."""

from __future__ import annotations

import msgspec

from faasmoe.util.msgpack import decode

LARGEST_PACKET = 64 << 10  # bytes
MOST_DESCRIPTORS = 8  # that come with an order


class Packet(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages; on the wire an array that begins with the class's name."""


class Load(Packet, frozen=True):
    """To the server, once and first: load what `payload` describes. Answered by `Loaded` or `LoadFailed`."""

    payload: bytes


class Fork(Packet, frozen=True):
    """To the server, with descriptors: fork a child that owns them, and does what `payload` describes.

    Answered by `Forked`, and later by `Ended`; or by `ForkFailed`.
    """

    number: int  # of the client's choice
    payload: bytes = b""


class Kill(Packet, frozen=True):
    """To the server: send SIGKILL to a child. Answered by `Killed`, even if no child has this number."""

    number: int


class Ping(Packet, frozen=True):
    """To the server: end workers that hang before they have an assignment. Answered by `Alive`."""


class Loaded(Packet, frozen=True):
    """From the server: children can be forked."""

    payload: bytes = b""


class LoadFailed(Packet, frozen=True):
    """From the server, which ends after it: nothing can be forked, because of the error in `payload`."""

    payload: bytes


class Forked(Packet, frozen=True):
    """From the server: the child runs."""

    number: int
    pid: int


class ForkFailed(Packet, frozen=True):
    """From the server: there is no child of this number, because the system refuses it."""

    number: int
    cause: str


class Killed(Packet, frozen=True):
    """From the server: the child was sent the signal, if it still ran."""

    number: int


class Ended(Packet, frozen=True):
    """From the server: the child has ended."""

    number: int
    status: int  # exit status, or minus the signal that killed the child


class Alive(Packet, frozen=True):
    """From the server: it obeys orders."""


Order = Load | Fork | Kill | Ping
Event = Loaded | LoadFailed | Forked | ForkFailed | Killed | Ended | Alive

pack = msgspec.msgpack.Encoder().encode
_order: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_event: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def read_order(packet: bytes) -> Order:
    """A message to the server. Raises `MessageError`."""
    return decode(_order, packet)


def read_event(packet: bytes) -> Event:
    """A message from the server. Raises `MessageError`."""
    return decode(_event, packet)
