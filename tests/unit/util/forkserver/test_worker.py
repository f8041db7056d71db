from __future__ import annotations

import errno
import os
import socket

import pytest

from faasmoe.errors import MessageError
from faasmoe.util.forkserver.connection import ClientLeft, Connection
from faasmoe.util.forkserver.messages import Fork, Kill, pack
from faasmoe.util.forkserver.worker import Worker, fork_worker, wait_for_assignment


class Pair:
    """A worker's two ends, in this process."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.worker = Worker(100, self.ours)
        self.channel = Connection(theirs)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()
        self.channel.close()


def test_an_assignment_arrives_with_its_descriptors_and_the_channel_is_closed() -> None:
    with Pair() as pair, open(os.devnull) as file:
        pair.worker.assign(Fork(7, b"work"), [file.fileno()] * 3)
        payload, descriptors = wait_for_assignment(pair.channel)
        assert payload == b"work"
        assert len(descriptors) == 3
        for each in descriptors:
            assert os.path.sameopenfile(each, file.fileno())
            os.close(each)
        assert pair.channel.fileno() == pair.ours.fileno() == -1


def test_a_worker_that_has_ended_takes_no_assignment() -> None:
    with Pair() as pair:
        pair.channel.close()
        with pytest.raises(OSError, match="Broken pipe"):
            pair.worker.assign(Fork(7), [0])


def test_a_worker_of_which_nothing_is_wanted_hears_it() -> None:
    with Pair() as pair:
        pair.worker.close()
        with pytest.raises(ClientLeft):
            wait_for_assignment(pair.channel)


def test_an_assignment_without_its_descriptors_is_an_error_of_the_system() -> None:
    with Pair() as pair:
        pair.ours.send(pack(Fork(7)))
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            wait_for_assignment(pair.channel)


def test_another_order_is_no_assignment() -> None:
    with Pair() as pair:
        pair.ours.send(pack(Kill(7)))
        with pytest.raises(MessageError, match="Kill, which is no assignment"):
            wait_for_assignment(pair.channel)


def test_a_fork_that_fails_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def live(_: Connection) -> None:
        raise AssertionError("only a child does this")

    monkeypatch.setattr(os, "fork", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
        fork_worker(live)
    assert len(os.listdir("/proc/self/fd")) == before
