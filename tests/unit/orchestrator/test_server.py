"""The orchestrator's end over a connection that is played."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import pytest

from faasmoe.errors import EngineBusy
from faasmoe.orchestrator.outbox import MOST_UNSENT
from faasmoe.orchestrator.server import Server, packed
from faasmoe.protocol.errors import error_of
from faasmoe.protocol.messages import (
    HEADER,
    LARGEST,
    Accepted,
    Cancel,
    Failed,
    Message,
    Pieces,
    Ready,
    Refused,
    ServedTokens,
    Starting,
    StatsReport,
    StatsRequest,
    Submit,
    body_length,
    pack,
    read_answer,
)
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.protocol.stats import EngineStats


class Connection:
    """What the gateway sends is put in as bytes, b"" for its end; what it is sent is read as messages."""

    def __init__(self) -> None:
        self._incoming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._rest = b""
        self._outgoing: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._answers: list[Message] = []

    def recv_into(self, view: memoryview) -> int:
        self._rest = self._rest or self._incoming.get()
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def sendall(self, data: bytes) -> None:
        self._outgoing.put(data)

    def say(self, *messages: Message) -> None:
        for message in messages:
            self._incoming.put(pack(message))

    def send(self, data: bytes) -> None:
        self._incoming.put(data)

    def answers(self) -> Iterator[Message]:
        """All but those that come by themselves each second."""
        while True:
            data = self._outgoing.get(timeout=30)
            while data:
                end = HEADER.size + body_length(data[: HEADER.size])
                message = read_answer(data[HEADER.size : end])
                data = data[end:]
                if not isinstance(message, (Starting, StatsReport)):
                    yield message


class Engine:
    """Answers nothing by itself; refuses requests whose id begins with `no`."""

    def __init__(self) -> None:
        self.listeners: dict[str, Callable[[Piece], None]] = {}
        self.cancelled: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.elsewhere: queue.SimpleQueue[dict[str, int]] = queue.SimpleQueue()

    def submit(self, request: GenerationRequest, listener: Callable[[Piece], None]) -> None:
        if request.id.startswith("no"):
            raise EngineBusy("full", retry_after=2)
        if request.id.startswith("defect"):
            raise KeyError("what a tenant wrote")
        self.listeners[request.id] = listener

    def cancel(self, request_id: str) -> None:
        self.cancelled.put(request_id)

    def take_busy(self) -> dict[str, float]:
        return {"a": 1.5}

    def take_served(self) -> dict[str, int]:
        return {"a": 7}

    def served_elsewhere(self, tokens: dict[str, int]) -> None:
        self.elsewhere.put(tokens)


class Played:
    def __init__(self) -> None:
        self.connection = Connection()
        self.gone: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.server = Server(self.connection, self.gone.put)  # type: ignore[arg-type]
        self.engine = Engine()
        self.answers = self.connection.answers()


@pytest.fixture
def played() -> Iterator[Played]:
    made = Played()
    yield made
    made.connection.send(b"")


@pytest.fixture
def ready(played: Played) -> Played:
    played.server.start()
    played.server.serve(played.engine, EngineStats)
    assert next(played.answers) == Ready()
    return played


def request(name: str) -> GenerationRequest:
    return GenerationRequest(name, (1,))


def test_requests_are_taken_and_pieces_come_back(ready: Played) -> None:
    ready.connection.say(Submit(5, (request("a"), request("b"))))
    assert next(ready.answers) == Accepted(5)
    ready.engine.listeners["b"](Piece("x", 1))
    assert next(ready.answers) == Pieces((("b", Piece("x", 1)),))


def test_all_or_none_of_a_submission_run(ready: Played) -> None:
    ready.connection.say(Submit(5, (request("a"), request("no"), request("c"))))
    refusal = next(ready.answers)
    assert isinstance(refusal, Refused)
    assert refusal.number == 5
    error = error_of(refusal.error)
    assert (type(error), error.retry_after) == (EngineBusy, 2)
    assert ready.engine.cancelled.get(timeout=30) == "a"
    assert list(ready.engine.listeners) == ["a"]


def test_requests_before_the_model_is_loaded_are_refused(played: Played) -> None:
    played.server.start()
    played.connection.say(Submit(1, (request("a"),)), Cancel(("a",)))
    refusal = next(played.answers)
    assert isinstance(refusal, Refused)
    assert "still starting" in refusal.error.message


def test_what_is_in_the_way_of_a_start_is_said(played: Played) -> None:
    played.server.start()
    played.server.fail(MemoryError("no room"))
    failed = next(played.answers)
    assert isinstance(failed, Failed)
    assert "MemoryError: no room" in failed.error.message


def test_cancelling_reaches_the_engine(ready: Played) -> None:
    ready.connection.say(Cancel(("a", "b")))
    assert [ready.engine.cancelled.get(timeout=30) for _ in range(2)] == ["a", "b"]


def test_a_request_that_the_gateway_does_not_keep_up_with_is_dropped(ready: Played) -> None:
    ready.connection.say(Submit(5, (request("a"),)))
    assert next(ready.answers) == Accepted(5)
    ready.connection.sendall = lambda _: ready.gone.get()  # type: ignore[method-assign] - blocks
    for i in range(3 * MOST_UNSENT):
        ready.engine.listeners["a"](Piece("x", i))  # never does
    ready.server.cancel_dropped(30)
    assert ready.engine.cancelled.get_nowait() == "a"
    ready.server.cancel_dropped(0.01)
    assert ready.engine.cancelled.empty()
    ready.gone.put(0)


def test_figures_come_when_asked(ready: Played) -> None:
    ready.connection.say(StatsRequest())
    while not isinstance(message := read_one(ready.connection), StatsReport):
        pass
    assert (message.stats, message.busy, message.served) == (EngineStats(), {"a": 1.5}, {"a": 7})


def test_the_engine_is_told_what_others_have_served(ready: Played) -> None:
    ready.connection.say(ServedTokens({"a": 12}))
    assert ready.engine.elsewhere.get(timeout=30) == {"a": 12}


def read_one(connection: Connection) -> Message:
    data = connection._outgoing.get(timeout=30)
    return read_answer(data[HEADER.size : HEADER.size + body_length(data[: HEADER.size])])


@pytest.mark.parametrize(("sent", "status"), [(b"", 0), (b"\x01", None), (pack(Starting()), 1), (bytes(64), 1)])
def test_the_end_is_told_with_its_reason(ready: Played, sent: bytes, status: int | None) -> None:
    ready.connection.send(sent)
    if status is None:  # in the middle of a message
        ready.connection.send(b"")
    assert ready.gone.get(timeout=30) == (status or 0)


def test_pieces_that_are_too_much_for_a_message_are_sent_in_several() -> None:
    half = "x" * (LARGEST // 2)
    pieces = (("a", Piece(half, 1)), ("b", Piece(half, 1)), ("c", Piece("y", 1)))
    data = packed(Pieces(pieces))
    found = []
    while data:
        end = HEADER.size + body_length(data[: HEADER.size])
        message = read_answer(data[HEADER.size : end])
        assert isinstance(message, Pieces)
        found += message.pieces
        data = data[end:]
    assert tuple(found) == pieces


def test_a_piece_that_is_too_much_alone_becomes_an_error() -> None:
    message = read_answer(packed(Pieces((("a", Piece("x" * LARGEST, 3)),)))[HEADER.size :])
    assert isinstance(message, Pieces)
    ((name, piece),) = message.pieces
    assert (name, piece.text, piece.tokens) == ("a", "", 3)
    assert "too large" in (piece.error or "")


def test_a_request_that_the_engine_chokes_on_is_refused_alone(ready: Played) -> None:
    ready.connection.say(Submit(1, (request("a"), request("defect"))), Submit(2, (request("b"),)))
    refused = next(ready.answers)
    assert isinstance(refused, Refused)
    assert "an internal error" in refused.error.message
    assert "tenant" not in refused.error.message
    assert ready.engine.cancelled.get(timeout=30) == "a"
    assert next(ready.answers) == Accepted(2)


@pytest.mark.parametrize("what", ["stats", "cancel"])
def test_a_thread_that_ends_ends_the_process(played: Played, what: str) -> None:
    """Otherwise requests would wait for what is never read, or never sent."""

    def broken(*_: object) -> EngineStats:
        raise ValueError("a defect")

    played.engine.cancel = broken  # type: ignore[assignment]
    played.server.start()
    played.server.serve(played.engine, broken if what == "stats" else EngineStats)
    played.connection.say(Cancel(("a",)) if what == "cancel" else StatsRequest())
    assert played.gone.get(timeout=30) == 1
