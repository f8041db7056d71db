"""The fork server on a scripted connection, with forks, kills and ends of children that are only recorded."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable

import pytest

from faasmoe.errors import MessageError
from faasmoe.util.forkserver import server
from faasmoe.util.forkserver.connection import ClientLeft, Connection
from faasmoe.util.forkserver.messages import (
    Ended,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Killed,
    Load,
    Ping,
)
from faasmoe.util.forkserver.server import ForkServer
from faasmoe.util.forkserver.worker import Assignment, Worker
from tests.unit.util.forkserver.scripts import AGAIN, Exited, Forks, Script, serve


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
    monkeypatch.setattr(server.logs, "rename", lambda name: done.append(("log", name)))
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
