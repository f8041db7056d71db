from __future__ import annotations

import queue
import threading
import time

import pytest

from faasmoe.orchestrator.outbox import MOST_UNSENT, Outbox
from faasmoe.protocol.messages import Accepted, Pieces
from faasmoe.protocol.request import Piece, ResourceUsage

NOW = 0.0  # an instant that has passed


def test_pieces_of_a_step_leave_together_after_messages() -> None:
    outbox = Outbox()
    outbox.piece("a", Piece("x", 1))
    outbox.post(Accepted(1))
    outbox.piece("b", Piece("y", 1))
    assert outbox.take(NOW) == [Accepted(1), Pieces((("a", Piece("x", 1)), ("b", Piece("y", 1))))]
    assert outbox.take(NOW) == []


def test_taking_waits_for_something() -> None:
    outbox = Outbox()
    taken: list[object] = []
    taker = threading.Thread(target=lambda: taken.extend(outbox.take(time.monotonic() + 60)))
    taker.start()
    outbox.post(Accepted(1))
    taker.join(30)
    assert taken == [Accepted(1)]


def test_a_request_whose_pieces_nobody_takes_is_dropped_with_an_error_and_others_are_not() -> None:
    outbox = Outbox()
    for i in range(MOST_UNSENT + 5):
        outbox.piece("slow", Piece("x", i))
    outbox.piece("other", Piece("y", 1))
    (message,) = outbox.take(NOW)
    assert isinstance(message, Pieces)
    assert [name for name, _ in message.pieces] == ["slow"] * MOST_UNSENT + ["other"]
    assert outbox.dropped.get_nowait() == "slow"
    outbox.piece("slow", Piece("late", 9))
    assert outbox.take(NOW) == []
    with pytest.raises(queue.Empty):  # told once
        outbox.dropped.get_nowait()
    used = ResourceUsage(invocations=3)
    outbox.piece("slow", Piece("", 9, "cancelled", used=used))
    (message,) = outbox.take(NOW)
    assert isinstance(message, Pieces)
    ((_, last),) = message.pieces
    assert "does not keep up" in (last.error or "")
    assert (last.tokens, last.used) == (9, used)


def test_the_last_piece_is_never_one_too_many() -> None:
    outbox = Outbox()
    for i in range(MOST_UNSENT):
        outbox.piece("a", Piece("x", i))
    outbox.piece("a", Piece("y", MOST_UNSENT, "stop"))
    (message,) = outbox.take(NOW)
    assert isinstance(message, Pieces)
    assert message.pieces[-1] == ("a", Piece("y", MOST_UNSENT, "stop"))
    assert outbox.dropped.empty()


def test_what_was_taken_no_longer_counts() -> None:
    outbox = Outbox()
    for _ in range(3):
        for i in range(MOST_UNSENT):
            outbox.piece("a", Piece("x", i))
        assert len(outbox.take(NOW)) == 1
    assert outbox.dropped.empty()


def test_an_id_may_be_used_again_after_the_last_piece() -> None:
    outbox = Outbox()
    for i in range(MOST_UNSENT + 1):
        outbox.piece("a", Piece("x", i))
    outbox.piece("a", Piece("", MOST_UNSENT, "cancelled"))
    outbox.take(NOW)
    outbox.piece("a", Piece("new", 1))
    assert outbox.take(NOW) == [Pieces((("a", Piece("new", 1)),))]


def test_too_many_messages_hold_up_who_posts_them() -> None:
    outbox = Outbox()
    posted = []

    def flood() -> None:
        for i in range(5000):
            outbox.post(Accepted(i))
            posted.append(i)

    flooder = threading.Thread(target=flood, daemon=True)
    flooder.start()
    taken: list[object] = []
    while len(taken) < 5000:
        got = outbox.take(time.monotonic() + 30)
        assert 0 < len(got) <= 1024
        taken += got
    flooder.join(30)
    assert taken == [Accepted(i) for i in range(5000)]
