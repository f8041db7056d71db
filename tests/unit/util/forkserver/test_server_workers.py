"""Workers that are forked ahead."""

from __future__ import annotations

import signal

import pytest

from faasmoe.util.backoff import Backoff
from faasmoe.util.forkserver.messages import (
    Alive,
    Ended,
    Fork,
    Forked,
    Kill,
    Ping,
)
from faasmoe.util.liveness import ProcessState
from tests.unit.clocks import Clock
from tests.unit.util.forkserver.scripts import AGAIN, Forks, Script, made_of, serve, serve_by

STOPPED, WAITS = ProcessState(True, False, 1.0), ProcessState(False, False, 1.0)


def test_workers_are_forked_ahead_and_assigned_in_their_order() -> None:
    forks, heard = Forks(), list[bytes]()
    script = Script(
        2,
        Fork(7, b"seven"),
        Fork(8, b"eight"),
        Fork(9, b"nine"),
        Ping(),
        lambda: heard.extend(map(forks.assignment, (100, 101, 102))),
    )
    sent = serve(script, forks, prefork=2)
    assert sent == [Forked(7, 100), Forked(8, 101), Forked(9, 102), Alive()]
    assert heard == [b"seven", b"eight", b"nine"]


def test_orders_come_before_workers_that_are_forked_ahead() -> None:
    forks = Forks()
    sent = serve(Script(Fork(7), [(100, 0)], Fork(8)), forks, prefork=2)
    assert sent == [Forked(7, 100), Ended(7, 0), Forked(8, 101)]


def test_a_worker_is_forked_ahead_when_no_order_has_come_for_a_moment() -> None:
    pauses: list[float | None] = []
    script, forks = Script(Ping(), lambda: pauses.append(made._pause()), 1), Forks()
    made = made_of(script, forks, prefork=1)
    serve_by(made, script, forks)
    assert pauses == [pytest.approx(5.0)]  # milliseconds: a child that was just given its assignment has begun


def test_it_settles_once_when_orders_were_obeyed_and_none_waits() -> None:
    forks, settled = Forks(), list[list[int]]()
    script = Script(2, Fork(7), Fork(8), 2, Fork(9), 1)
    made = made_of(script, forks, prefork=2, settle=lambda: settled.append(sorted(forks.ends)))
    serve_by(made, script, forks)
    assert settled == [[100, 101]]  # before it forks ahead again


def test_as_many_workers_wait_as_are_wanted() -> None:
    forks = Forks()
    made = made_of(script := Script(3, Fork(7), 1, Kill(7)), forks, prefork=3)
    serve_by(made, script, forks)
    assert [worker.pid for worker in made._waiting] == [101, 102, 103]


def test_a_worker_that_died_while_it_waited_gets_no_assignment() -> None:
    forks = Forks()
    script = Script(2, lambda: forks.ends.pop(100).close(), Fork(7), [(100, -9)], [(101, 0)])
    assert serve(script, forks, prefork=2) == [Forked(7, 101), Ended(7, 0)]


def test_the_pause_before_the_next_worker_grows_while_they_fail(caplog: pytest.LogCaptureFixture) -> None:
    """Both if they cannot be forked and if they die before they have an assignment."""
    clock, pauses = Clock(), list[float | None]()

    def look() -> None:
        pauses.append(made._pause())
        clock.now += 10.0

    script, forks = Script(1, Ping(), look, 1, [(100, 1)], Ping(), look, 1, Ping(), look), Forks(AGAIN)
    made = made_of(script, forks, prefork=1, backoff=Backoff(0.1, 5.0, clock=clock, chance=lambda: 1.0))
    serve_by(made, script, forks)
    assert pauses == [pytest.approx(100.0), pytest.approx(200.0), None]  # milliseconds; enough wait
    assert "no worker can be forked ahead" in caplog.text


def test_workers_that_hang_while_they_wait_are_killed_when_the_client_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    forks = Forks()
    script = Script(3, Fork(7), Ping(), Ping(), Ping(), [(101, -9)])
    looks = {100: STOPPED, 101: STOPPED, 102: WAITS}
    sent = serve(script, forks, prefork=3, read=lambda pid, _: looks[pid])
    assert sent == [Forked(7, 100), Alive(), Alive(), Alive()]
    assert set(forks.killed) == {(101, signal.SIGKILL)}  # the client looks after 100 itself
    assert "a waiting worker is killed: it was stopped" in caplog.text
