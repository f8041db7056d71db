"""Messages between clients and agents: the heads of frames, as MessagePack.

A connection carries one exchange at a time: the client asks, the agent replies. After the handshake (`handshake`) the
connection's lane says what may be asked:

    beat    `Beat`, four times a second
    orders  what changes or tells the state of a node
    calls   batches (`call_batch`), answered by their replies or by a `Failure`
    weights the other way round: the agent asks for pieces of weights (`AskPieces`), the head of the pool answers
    hosting, orchestrator   see `hosting_messages`
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from faasmoe.errors import (
    DeadlineExceeded,
    FunctionError,
    MessageError,
    OptionError,
    PlatformError,
    ServingError,
    UnknownFunction,
    UserError,
)
from faasmoe.platforms.base import FunctionSpec, PoolStatus
from faasmoe.platforms.cluster.authority.revocations import Revocation
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.msgpack import decode, path_of_text, text_of_path

Lane = Literal["beat", "orders", "calls", "weights", "hosting", "orchestrator"]
HOSTING_LANES: tuple[Lane, ...] = ("hosting", "orchestrator")
Willingness = Literal["ready", "draining", "drained"]  # see `NodeState`
FailureKind = Literal["function", "unknown", "deadline", "option", "draining", "weights", "platform"]


class ClusterMessage(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages."""


class Hello(ClusterMessage, frozen=True, kw_only=True):
    """The first message of a connection, from the client. Answered by `Welcome` or `TurnedAway`."""

    lane: Lane
    pool: str  # for which the client works; empty: it only looks
    head: bool  # whether the client owns the pool


class Welcome(ClusterMessage, frozen=True, kw_only=True):
    """The connection may be used."""

    incarnation: str  # of the agent: another one when it was started again
    cores: int
    memory_budget: int | None


class TurnedAway(ClusterMessage, frozen=True):
    """The reply to a client that may not use the node."""

    cause: str


class Beat(ClusterMessage, frozen=True):
    """A heartbeat. Answered by `BeatReply`."""

    revoked: tuple[Revocation, ...] = ()  # all that the server knows, if they have changed since the last one


class BeatReply(ClusterMessage, frozen=True):
    """The node lives."""

    stamp: int  # of the newest entry in its catalogue
    state: Willingness
    traffic: Traffic


class CatalogueEntry(msgspec.Struct, frozen=True, array_like=True):
    """What a catalogue knows of a function. Of two entries for one function the one with the larger stamp holds."""

    name: str
    stamp: int
    spec: FunctionSpec | None  # None: it was removed
    content: FunctionContent | None = None  # None: its artifact is no regular file
    hosts: tuple[str, ...] = ()  # nodes that are to run it
    signature: bytes = b""  # by the server, see `signed_entries`


class Install(ClusterMessage, frozen=True):
    """Take over entries of a catalogue: deploy and remove functions. Answered by `Finished`."""

    entries: tuple[CatalogueEntry, ...]


class AskCatalogue(ClusterMessage, frozen=True):
    """Ask for the entries with stamps above `beyond`. Answered by `CatalogueReport`."""

    beyond: int


class CatalogueReport(ClusterMessage, frozen=True):
    """Entries of a node's catalogue."""

    entries: tuple[CatalogueEntry, ...]


class StopFunctions(ClusterMessage, frozen=True):
    """Drain functions' instances. Answered by `Finished`."""

    names: tuple[str, ...]


class PrewarmFunctions(ClusterMessage, frozen=True):
    """Start an instance of each function that has none. Answered by `Finished`."""

    names: tuple[str, ...]


class CheckFits(ClusterMessage, frozen=True):
    """Ask whether an instance of each function fits into the node's memory. Answered by `Finished` if so."""

    names: tuple[str, ...]


class DrainNode(ClusterMessage, frozen=True):
    """Have the head move all functions off the node, or let them come again. Answered by `Finished` at once."""

    wanted: bool


class AskNode(ClusterMessage, frozen=True):
    """Ask for the state of the node. Answered by `NodeReport`."""


class Finished(ClusterMessage, frozen=True):
    """The order was carried out."""


class Traffic(msgspec.Struct, frozen=True, array_like=True):
    """The traffic of calls, since the agent was started."""

    calls: int = 0  # answered
    frames: int = 0  # in which they came
    received: int = 0  # bytes
    sent: int = 0
    busy_seconds: float = 0.0  # in which instances worked on these calls
    busy_gb_seconds: float = 0.0  # times what each instance counts for

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.calls + other.calls,
            self.frames + other.frames,
            self.received + other.received,
            self.sent + other.sent,
            self.busy_seconds + other.busy_seconds,
            self.busy_gb_seconds + other.busy_gb_seconds,
        )


class WeightsReport(msgspec.Struct, frozen=True, array_like=True):
    """The weights of a node."""

    lacking: int = 0  # functions that it hosts, and whose weights are not there
    fetched: int = 0  # bytes that it has received for weights since the agent was started
    cause: str = ""  # why it lacks weights, if that is not only that they are under way


class NodeReport(ClusterMessage, frozen=True, kw_only=True):
    """The state of a node."""

    state: Willingness
    pool: PoolStatus
    traffic: Traffic
    work: dict[str, float]  # of the calls that were answered, by function; see `Call.work`
    weights: WeightsReport = WeightsReport()
    orchestrators: int = 0  # that it runs


class AskPieces(ClusterMessage, frozen=True, kw_only=True):
    """From an agent: send these pieces of a function's weights.

    Each is answered by a frame of kind PIECE whose head is its number, in order, or all that are left by `NoPieces`.
    """

    function: str
    digest: str  # of the content, for it may have been deployed anew
    pieces: tuple[int, ...]  # numbers in `FunctionContent.pieces`
    again: bool = False  # they came with wrong bytes before


class ReadPiece(ClusterMessage, frozen=True):
    """To an agent: send a piece of weights that the node has. Answered by a frame of kind PIECE, or by `Failure`."""

    function: str
    digest: str  # of the content
    piece: int  # number in `FunctionContent.pieces`


class NoPieces(ClusterMessage, frozen=True):
    """From the head: pieces cannot be had."""

    cause: str


class Failure(ClusterMessage, frozen=True, kw_only=True):
    """Why an order or a batch was not carried out."""

    kind: FailureKind
    cause: str
    function: str = ""
    error: str = ""  # class of what the function raised; for `weights`: "under way", "failed" or "elsewhere"
    lacking: tuple[str, ...] = ()  # all functions of the batch whose weights the node lacks

    @classmethod
    def of(cls, error: UserError | ServingError) -> Failure:
        """What a client may know of `error`."""
        match error:
            case FunctionError():
                cause = str(error).partition(f"failed with {error.kind}: ")[2]
                return cls(kind="function", cause=cause, function=error.function, error=error.kind)
            case UnknownFunction():
                return cls(kind="unknown", cause=error.cause, function=error.function)
            case DeadlineExceeded():
                return cls(kind="deadline", cause=error.cause, function=error.function)
            case PlatformError():
                return cls(kind="platform", cause=error.cause, function=error.function)
            case UserError():
                return cls(kind="option", cause=str(error))
        return cls(kind="platform", cause=str(error), function="(all)")

    def error_of(self, platform: str, node: str) -> UserError | ServingError:
        """The error for the caller of `platform`."""
        where = f"{self.cause} (node {node})"
        match self.kind:
            case "function":
                return FunctionError(self.function, self.error, self.cause)
            case "unknown":
                return UnknownFunction(platform, self.function, self.cause)
            case "deadline":
                return DeadlineExceeded(platform, self.function, where)
            case "option":
                return OptionError(f"node {node}: {self.cause}")
        return PlatformError(platform, self.function, where)


Order = Install | AskCatalogue | StopFunctions | PrewarmFunctions | CheckFits | DrainNode | AskNode
Asked = Hello | Beat | Order | ReadPiece | NoPieces
Answered = Welcome | TurnedAway | BeatReply | Finished | CatalogueReport | NodeReport | Failure | AskPieces

_M = TypeVar("_M")


encode = msgspec.msgpack.Encoder(enc_hook=text_of_path).encode
_asked: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Asked, dec_hook=path_of_text)
_entry = msgspec.msgpack.Decoder(CatalogueEntry, dec_hook=path_of_text)
_answered: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Answered, dec_hook=path_of_text)


def read_asked(head: memoryview) -> Asked:
    """What a client has sent. Raises `Lost`."""
    asked: Asked = read(_asked, head)
    return asked


def read_answered(head: memoryview) -> Answered:
    """What an agent has sent. Raises `Lost`."""
    answered: Answered = read(_answered, head)
    return answered


def as_read(entry: CatalogueEntry) -> CatalogueEntry:
    """An entry as the other side reads it, where a whole number may have become a float."""
    return _entry.decode(encode(entry))


def read(decoder: msgspec.msgpack.Decoder[_M], head: memoryview) -> _M:
    """A message, by the decoder of its kind. Raises `Lost`."""
    try:
        return decode(decoder, head)
    except MessageError as error:
        raise Lost(str(error)) from error
