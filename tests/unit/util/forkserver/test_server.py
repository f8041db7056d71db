"""The fork server on a scripted connection, with forks, kills and ends of children that are only recorded."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from faasmoe.errors import MessageError
from faasmoe.util.forkserver import server
from faasmoe.util.forkserver.messages import (
    LARGEST_PACKET,
    Ended,
    Event,
    Fork,
    Forked,
    Kill,
    Killed,
    Load,
    Loaded,
    Order,
    pack,
    read_event,
)
from faasmoe.util.forkserver.server import ClientLeft, Connection, ForkServer
from faasmoe.util.processes import Children

Ends = list[tuple[int, int]]
Step = Order | Exception | Ends  # an order, what `receive` raises, or children that end


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

    def __init__(self, steps: list[Step], *, without_descriptor: bool = False) -> None:
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
        os.write((self._ends if isinstance(self._next, list) else self._orders).write, b"x")

    def fileno(self) -> int:
        return self._orders.read

    def receive(self) -> tuple[Order, list[int]]:
        os.read(self._orders.read, 1)
        step = self._next
        assert not isinstance(step, list)
        if isinstance(step, Exception):
            raise step
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
    """In place of `os.fork` and `os.kill`: process ids 100, 101, ..., or an error."""

    def __init__(self, error: OSError | None = None) -> None:
        self._error = error
        self._last = 99
        self.killed: list[tuple[int, int]] = []

    def fork(self) -> int:
        if self._error:
            raise self._error
        self._last += 1
        return self._last

    def kill(self, pid: int, number: int) -> None:
        self.killed.append((pid, number))


def refuse(sock: socket.socket, payload: bytes) -> int:
    raise AssertionError("only a child does this")


def serve(script: Script, forks: Forks, raises: type[Exception] = ClientLeft) -> list[Event]:
    """What the server has sent when it ended by `raises`."""
    made = ForkServer(script, "worker", refuse, fork=forks.fork, kill=forks.kill, children=script.children)
    try:
        with pytest.raises(raises):
            made.serve()
    finally:
        script.dispose()
    for fd in script.given:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)  # the children have copies
    return script.sent


def test_children_from_their_forks_to_their_ends() -> None:
    script = Script([Fork(7), Fork(9), [(101, 0), (555, 1)], [(100, -signal.SIGSEGV)]])
    assert serve(script, Forks()) == [Forked(7, 100), Forked(9, 101), Ended(9, 0), Ended(7, -signal.SIGSEGV)]
    assert len(script.given) == 2


def test_a_kill_is_answered_whether_a_child_has_the_number_or_not() -> None:
    forks = Forks()
    sent = serve(Script([Fork(7), Kill(8), Kill(7), [(100, -9)], Kill(7)]), forks)
    assert sent == [Forked(7, 100), Killed(8), Killed(7), Ended(7, -9), Killed(7)]
    assert forks.killed == [(100, signal.SIGKILL)]  # not again when the id may be another's


def test_a_fork_that_fails_is_an_end_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    script = Script([Fork(7), Kill(7)])
    error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    assert serve(script, Forks(error)) == [Ended(7, 1), Killed(7)]
    assert f"no worker can be forked: {os.strerror(errno.EAGAIN)}" in caplog.text


def test_a_fork_whose_descriptor_did_not_arrive_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert serve(Script([Fork(7), Kill(7)], without_descriptor=True), Forks()) == [Ended(7, 1), Killed(7)]
    assert os.strerror(errno.EMFILE) in caplog.text


def test_an_order_that_is_malformed_or_out_of_place_ends_the_server() -> None:
    assert serve(Script([Fork(7), MessageError("malformed")]), Forks(), MessageError) == [Forked(7, 100)]
    assert serve(Script([Fork(7), Load(b"")]), Forks(), MessageError) == [Forked(7, 100)]


@pytest.mark.parametrize(("outcome", "status"), [(3, 3), (RuntimeError("broken"), 1), (SystemExit(5), 1)])
def test_a_child_does_its_work_and_exits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, outcome: int | BaseException, status: int
) -> None:
    done: list[object] = []

    def leave(code: int) -> None:
        raise Exited(code)

    def work(sock: socket.socket, payload: bytes) -> int:
        with sock:
            sock.send(b"hello")
        done.append(payload)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    ours, theirs = socket.socketpair()
    monkeypatch.setattr(server, "die_with_parent", lambda parent: done.append(("parent", parent)))
    monkeypatch.setattr(server, "set_name", lambda name: done.append(("name", name)))
    monkeypatch.setattr(server.logs, "inherit", lambda name: done.append(("log", name)))
    monkeypatch.setattr(os, "_exit", leave)
    script = Script([])
    made = ForkServer(script, "worker", work, fork=lambda: 0, children=script.children)
    with ours:
        with pytest.raises(Exited) as left:
            made._fork(Fork(7, b"work"), theirs.detach())
        assert ours.recv(16) == b"hello"
    script.dispose()
    assert left.value.args == (status,)
    assert done == [("parent", os.getpid()), ("name", "worker"), ("log", "worker"), b"work"]
    assert script.closed
    assert script.children.left
    assert not script.sent  # the parent tells the client
    assert ("the worker has failed" in caplog.text) == isinstance(outcome, RuntimeError)


class Pair:
    """Both ends of a connection, in this process."""

    def __init__(self) -> None:
        self.client, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection = Connection(theirs)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.connection.close()


def test_orders_come_with_their_descriptors_and_events_go() -> None:
    with Pair() as pair, open(os.devnull) as file:
        socket.send_fds(pair.client, [pack(Fork(1, b"x"))], [file.fileno()])
        order, fds = pair.connection.receive()
        assert order == Fork(1, b"x")
        assert os.path.sameopenfile(fds[0], file.fileno())
        os.close(fds[0])
        pair.client.send(pack(Kill(1)))
        assert pair.connection.receive() == (Kill(1), [])
        pair.connection.send(Loaded(b"x"))
        assert read_event(pair.client.recv(LARGEST_PACKET)) == Loaded(b"x")
        pair.client.close()
        with pytest.raises(ClientLeft):
            pair.connection.receive()
        with pytest.raises(ClientLeft):
            pair.connection.send(Loaded())


def test_the_first_order_is_load() -> None:
    with Pair() as pair:
        pair.client.send(pack(Load(b"x")))
        assert pair.connection.load() == b"x"
        pair.client.send(pack(Kill(1)))
        with pytest.raises(MessageError, match="Kill, which is not Load, first"):
            pair.connection.load()


@pytest.mark.parametrize("packet", [b"\xc1", pack(Load(bytes(LARGEST_PACKET)))], ids=["malformed", "too long"])
def test_a_bad_packet_leaves_no_descriptor_open(packet: bytes) -> None:
    with Pair() as pair, open(os.devnull) as file:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(pair.client, [packet], [file.fileno()])
        with pytest.raises(MessageError, match="packet of"):
            pair.connection.receive()
        assert len(os.listdir("/proc/self/fd")) == before


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
        "the client sent a malformed packet of 1 bytes: DecodeError"
    ]


def test_a_client_that_leaves_ends_the_process_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(monkeypatch)
    assert not caplog.records
