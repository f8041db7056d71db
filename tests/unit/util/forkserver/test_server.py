"""The fork server on a scripted connection, with forks, kills and ends of children that are only recorded."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from faasmoe.errors import MessageError
from faasmoe.util.backoff import Backoff
from faasmoe.util.forkserver import server
from faasmoe.util.forkserver.connection import ClientLeft, Connection, close_all
from faasmoe.util.forkserver.messages import (
    Alive,
    Ended,
    Event,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Killed,
    Load,
    Order,
    Ping,
)
from faasmoe.util.forkserver.server import ForkServer
from faasmoe.util.forkserver.worker import Assignment, Worker, wait_for_assignment
from faasmoe.util.liveness import ProcessState
from faasmoe.util.processes import Children
from tests.unit.clocks import Clock

STOPPED, WAITS = ProcessState(True, False, 1.0), ProcessState(False, False, 1.0)
Ends = list[tuple[int, int]]
# an order, what `receive` raises, children that end, what happens then, or how often the server tries to fork meanwhile
Step = Order | Exception | Ends | Callable[[], object] | int


class Exited(BaseException):
    """What `os._exit` does in these tests."""


class Pipe:
    """Readable while something is to be told."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


class Script(Connection):
    """A client that gives an order a time; each of its steps waits for the one before."""

    def __init__(self, *steps: Step, without_descriptor: bool = False) -> None:
        self._steps = [*steps, ClientLeft()]
        self._without_descriptor = without_descriptor
        self._orders, self._ends = Pipe(), Pipe()
        self._next: Step = []
        self.sent: list[Event] = []
        self.given: list[int] = []  # descriptors, which the server owns
        self.closed = False
        self.children = Reaped(self)
        self.ready()

    def ready(self) -> None:
        self._next = self._steps.pop(0)
        if callable(self._next):
            self._next()
            self.ready()
        elif isinstance(self._next, list):
            os.write(self._ends.write, b"x")
        elif not isinstance(self._next, int):
            os.write(self._orders.write, b"x")

    def tried(self) -> None:
        """The server has forked a worker, or could not."""
        if isinstance(self._next, int):
            self._next -= 1
            if not self._next:
                self.ready()

    def fileno(self) -> int:
        return self._orders.read

    def receive(self) -> tuple[Order, list[int]]:
        os.read(self._orders.read, 1)
        step = self._next
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Order)
        fds = [] if self._without_descriptor or not isinstance(step, Fork) else [os.open(os.devnull, os.O_RDONLY)]
        self.given += fds
        self.ready()
        return step, fds

    def send(self, event: Event) -> None:
        self.sent.append(event)

    def close(self) -> None:
        self.closed = True

    def dispose(self) -> None:
        self._orders.close()
        self._ends.close()


class Reaped(Children):
    """The children's ends, as the script has them."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.left = False

    def fileno(self) -> int:
        return self._script._ends.read

    def ended(self) -> Iterator[tuple[int, int]]:
        os.read(self._script._ends.read, 1)
        ends = self._script._next
        assert isinstance(ends, list)
        yield from ends
        self._script.ready()

    def leave(self) -> None:
        self.left = True


class Forks:
    """In place of `fork_worker` and `os.kill`: process ids 100, 101, ..., after these errors.

    What a worker is told can be read from its end of the channel.
    """

    def __init__(self, *errors: OSError) -> None:
        self._errors = list(errors)
        self._last = 99
        self.script: Script | None = None
        self.ends: dict[int, Connection] = {}
        self.killed: list[tuple[int, int]] = []

    def fork(self, live: Callable[[Connection], None]) -> Worker:
        assert self.script
        self.script.tried()
        if self._errors:
            raise self._errors.pop(0)
        self._last += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends[self._last] = Connection(theirs)
        return Worker(self._last, ours)

    def kill(self, pid: int, number: int) -> None:
        self.killed.append((pid, number))

    def assignment(self, pid: int) -> bytes:
        """The payload that a worker got, with one descriptor."""
        payload, fds = wait_for_assignment(self.ends[pid])
        assert len(fds) == 1
        close_all(fds)
        return payload


def refuse(wait: Callable[[], Assignment]) -> int:
    raise AssertionError("only a child does this")


def made_of(script: Script, forks: Forks, **options: Any) -> ForkServer:
    forks.script = script
    return ForkServer(
        script, "worker", refuse, fork=forks.fork, kill=forks.kill, children=script.children, **options
    )


def serve(script: Script, forks: Forks, raises: type[Exception] = ClientLeft, **options: Any) -> list[Event]:
    """What the server has sent when it ended by `raises`."""
    return serve_by(made_of(script, forks, **options), script, forks, raises)


def serve_by(made: ForkServer, script: Script, forks: Forks, raises: type[Exception] = ClientLeft) -> list[Event]:
    try:
        with pytest.raises(raises):
            made.serve()
    finally:
        script.dispose()
        for end in (*forks.ends.values(), *made._waiting):
            end.close()
    for fd in script.given:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)  # the children have copies
    return script.sent


AGAIN = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_children_from_their_forks_to_their_ends() -> None:
    script = Script(Fork(7), Fork(9), [(101, 0), (555, 1)], [(100, -signal.SIGSEGV)])
    assert serve(script, Forks()) == [Forked(7, 100), Forked(9, 101), Ended(9, 0), Ended(7, -signal.SIGSEGV)]
    assert len(script.given) == 2


def test_a_child_gets_its_payload_and_its_descriptors() -> None:
    forks = Forks()
    heard: list[bytes] = []
    script = Script(Fork(7, b"seven"), Ping(), lambda: heard.append(forks.assignment(100)))
    serve(script, forks)
    assert heard == [b"seven"]


def test_a_kill_is_answered_whether_a_child_has_the_number_or_not() -> None:
    forks = Forks()
    sent = serve(Script(Fork(7), Kill(8), Kill(7), [(100, -9)], Kill(7)), forks)
    assert sent == [Forked(7, 100), Killed(8), Killed(7), Ended(7, -9), Killed(7)]
    assert forks.killed == [(100, signal.SIGKILL)]  # not again when the id may be another's


def test_a_fork_that_fails_is_told_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(Fork(7), Kill(7), Fork(8))
    cause = os.strerror(errno.EAGAIN)
    assert serve(script, Forks(AGAIN)) == [ForkFailed(7, cause), Killed(7), Forked(8, 100)]
    assert f"no worker can be forked: {cause}" in caplog.text


def test_a_fork_whose_descriptors_did_not_arrive_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    sent = serve(Script(Fork(7), Kill(7), without_descriptor=True), Forks())
    assert sent == [ForkFailed(7, os.strerror(errno.EMFILE)), Killed(7)]
    assert os.strerror(errno.EMFILE) in caplog.text


def test_an_order_that_is_malformed_or_out_of_place_ends_the_server() -> None:
    assert serve(Script(Fork(7), MessageError("malformed")), Forks(), MessageError) == [Forked(7, 100)]
    assert serve(Script(Fork(7), Load(b"")), Forks(), MessageError) == [Forked(7, 100)]


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


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(3, 3), (RuntimeError("broken"), 1), (SystemExit(5), 1), (ClientLeft(), 0)],
)
def test_a_child_does_its_work_and_exits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, outcome: int | BaseException, status: int
) -> None:
    done: list[object] = []

    def leave(code: int) -> None:
        raise Exited(code)

    def work(wait: Callable[[], Assignment]) -> int:
        payload, (descriptor,) = wait()
        with socket.socket(fileno=descriptor) as sock:
            sock.send(b"hello")
        done.append(payload)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(server, "die_with_parent", lambda parent: done.append(("parent", parent)))
    monkeypatch.setattr(server, "set_name", lambda name: done.append(("name", name)))
    monkeypatch.setattr(server.logs, "inherit", lambda name: done.append(("log", name)))
    monkeypatch.setattr(os, "_exit", leave)
    script = Script()
    made = ForkServer(script, "worker", work, children=script.children)
    sibling_end, sibling = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made._waiting.append(Worker(99, sibling))
    inherited = os.dup(0)
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, given = socket.socketpair()
    with ours, given, sibling_end:
        Worker(100, channel).assign(Fork(7, b"work"), [given.fileno()])
        with pytest.raises(Exited) as left:
            made._live(os.getpid(), [inherited], Connection(theirs))
        assert ours.recv(16) == b"hello"
    script.dispose()
    assert left.value.args == (status,)
    assert done == [("parent", os.getpid()), ("name", "worker"), ("log", "worker"), b"work"]
    assert script.closed
    assert script.children.left
    assert sibling.fileno() == -1
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(inherited)
    assert not script.sent  # the parent tells the client
    assert ("the worker has failed" in caplog.text) == isinstance(outcome, RuntimeError)


def run(monkeypatch: pytest.MonkeyPatch, *packets: bytes) -> None:
    """A server's `main`, whose client sends `packets` and leaves."""

    def load(connection: Connection) -> None:
        try:
            connection.load()
        finally:
            connection.close()

    for name in ("die_with_parent", "leave_signals_to_parent"):
        monkeypatch.setattr(server, name, lambda *_: None)
    monkeypatch.setattr(server.logs, "inherit", lambda _: None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(server.sys, "argv", ["server", str(theirs.detach()), "1"])
    with ours:
        for packet in packets:
            ours.send(packet)
        ours.shutdown(socket.SHUT_WR)
        server.run("server", load)


def test_a_client_that_sends_nonsense_ends_the_process_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, b"\xc1")
    assert left.value.code == 1
    assert [each.getMessage() for each in caplog.records] == [
        "the client sent a malformed message of 1 bytes: DecodeError"
    ]


def test_a_client_that_leaves_ends_the_process_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(monkeypatch)
    assert not caplog.records
