"""The gateway's hold on an orchestrator, over a link that is played."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

import pytest

from faasmoe.errors import CheckpointError, EngineStopped, MessageError, ProcessLost
from faasmoe.fleet import replica_process
from faasmoe.fleet.replica_process import ReplicaProcess
from faasmoe.protocol.errors import failure_of
from faasmoe.protocol.messages import Accepted, Failed, Ready, Starting, ToGateway


class Link:
    """Says what it was given, and then raises what it was given; an endless one repeats the last."""

    def __init__(self, messages: Sequence[ToGateway], error: Exception | None = None) -> None:
        self.messages, self.error = list(messages), error
        self.closed = False

    async def receive(self) -> ToGateway:
        return self.messages.pop(0) if len(self.messages) > 1 else self.messages[0]

    async def run(self) -> None:
        assert self.error is not None
        raise self.error

    async def close(self) -> None:
        self.closed = True


def held(link: Link, kill: Callable[[], None] = lambda: None) -> tuple[ReplicaProcess, asyncio.Future[int]]:
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    return ReplicaProcess(link, ended, kill), ended  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("messages", "error", "text"),
    [
        ([Starting(), Starting(), Ready()], None, ""),
        ([Starting(), Failed(failure_of(CheckpointError("cut short")))], CheckpointError, "cut short"),
        ([Accepted(1)], MessageError, "Accepted is not expected"),
        ([Starting()], ProcessLost, "did not start within 60 s"),
    ],
)
def test_it_starts_or_says_why_not(messages: list[ToGateway], error: type[Exception] | None, text: str) -> None:
    async def run() -> None:
        its, _ = held(Link(messages))
        if error is None:
            await its.ready()
            return
        with pytest.raises(error, match=text):
            await its.ready()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ProcessLost("the orchestrator has ended"), "the orchestrator has ended"),
        (MessageError("Expected `int`, got `str` - at `$[1]`"), "the orchestrator is not understood"),
        (KeyError("a defect"), "the orchestrator is not understood"),
        (EngineStopped("anything"), "the orchestrator is not understood"),
    ],
)
def test_however_it_is_lost_clients_are_told_no_internals(error: Exception, told: str) -> None:
    async def run() -> None:
        its, _ = held(Link([], error))
        assert await its.serve() == told

    asyncio.run(run())


@pytest.mark.parametrize(
    ("hears", "dies", "status"),
    [(True, True, "status 0"), (False, True, "killed by SIGKILL"), (False, False, "killed, and not gone yet")],
)
def test_its_end_is_bounded(hears: bool, dies: bool, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_process, "_HANG_UP_SECONDS", 0.01)
    monkeypatch.setattr(replica_process, "_KILL_SECONDS", 0.01)

    async def run() -> None:
        def kill() -> None:
            if dies:
                ended.set_result(-signal.SIGKILL)

        its, ended = held(Link([]), kill)
        if hears:
            ended.set_result(0)
        assert await its.end() == status
        assert its.link.closed  # type: ignore[attr-defined]

    asyncio.run(run())
