"""An agent takes the place of the one that an actor before its own has left. Needs no Ray."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable

import pytest

from faasmoe.platforms.ray.actor import agent
from faasmoe.platforms.ray.actor.agent import take_place
from faasmoe.platforms.ray.messages import agent_address

ADDRESS = agent_address(os.getpid(), "test")


def followed(there: socket.socket, end: Callable[[], object]) -> threading.Thread:
    """The agent before: it ends when somebody connects."""

    def run() -> None:
        assert select.select([there], [], [], 10)[0]
        end()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_it_waits_for_the_end_of_the_one_before() -> None:
    for first in (take_place(ADDRESS), take_place(ADDRESS.replace("test", "other"))):
        address = first.getsockname().decode()
        thread = followed(first, first.close)
        with take_place(address) as second:
            assert first.fileno() == -1
            assert not select.select([second], [], [], 0)[0]  # nobody wants its place
        thread.join()


def test_one_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_TAKE_SECONDS", 0.2)
    with take_place(ADDRESS), pytest.raises(OSError, match="the agent that was there before does not end"):
        take_place(ADDRESS)
